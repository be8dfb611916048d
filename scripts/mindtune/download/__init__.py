"""Fetching large files over poor lines: resumed, verified, and never half there.

What was weighed before anything was written here: pypdl resumes and takes parallel ranges, but
only where the server gives an ETag, knows no Retry-After, and trusts what an interrupted run
left. parfive takes ranges and does not resume; pooch verifies and does neither. aria2 does
most of it and is no Python package. huggingface_hub and modelscope do it well for their own
hubs, and are used for them (`hubs`). So: requests for the line, its proxies and redirects,
urllib3's Retry for statuses, backoff and Retry-After, filelock, tqdm; and from us the journal
of what has arrived (`parts`), the ranges (`transfer`) and the verdict (`store`).
"""
