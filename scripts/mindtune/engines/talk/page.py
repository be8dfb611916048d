"""The same talk on a small page of this machine, with the boxes of the answers drawn. It needs gradio."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindtune.engines.talk.asking import Speaker, drawn
from mindtune.errors import UserError

ADDRESS = "127.0.0.1"
FIRST_PORT, LAST_PORT = 7860, 7959  # gradio's own


def serve(
    speakers: Sequence[Speaker],
    picture: Path | None,
    max_new_tokens: int,
    image_resolution: int,
    port: int | None,
) -> None:
    """Serve the page to this machine alone, until Ctrl-C.

    Raises
    ------
    UserError: gradio is not installed, or the port can't be had.
    """
    # Neither use is counted nor is a version looked for.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    # Others' pictures would be in /tmp/gradio for good.
    with tempfile.TemporaryDirectory() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = built(gradio(), speakers, picture, max_new_tokens, image_resolution)
        ports = [port] if port else range(FIRST_PORT, LAST_PORT + 1)
        try:
            page.launch(
                server_name=ADDRESS, server_port=_free(ports), share=False, inbrowser=False,
                quiet=True, prevent_thread_lock=True, show_error=True,
                allowed_paths=[str(picture.resolve())] if picture else [],
            )  # fmt: skip
        except OSError as error:
            raise UserError(
                f"port {port} of {ADDRESS} can't be had ({error}); write another --port."
            ) from error
        print(f"http://{ADDRESS}:{page.server_port} (Ctrl-C ends)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close()


def gradio() -> Any:
    """
    Raises
    ------
    UserError: it is not installed.
    """
    try:
        import gradio as found
    except ImportError as error:
        raise UserError(
            f"--web needs gradio, which can't be imported ({error}); `pip install -r envs/web.txt`, or leave "
            "--web out."
        ) from error
    return found


def built(
    gr: Any,
    speakers: Sequence[Speaker],
    picture: Path | None,
    max_new_tokens: int,
    image_resolution: int,
) -> Any:
    """The page, which asks all speakers the same question."""

    def ask(path: str | None, question: str) -> list:
        if not path:
            raise gr.Error("There is no picture; choose one.", print_exception=False)
        try:
            answers = [speaker.answer(Path(path), question, max_new_tokens) for speaker in speakers]
            shown = [
                drawn(Path(path), image_resolution, [answer.placed or answer.text])
                for answer in answers
            ]
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        found = []
        for answer, image in zip(answers, shown, strict=True):
            found += [f"{answer.text}\n({answer.note()})", image]
        return found

    with gr.Blocks(title="mindtune", analytics_enabled=False) as page:
        gr.Markdown("# Ask about a picture\nEach question is asked by itself. Boxes are drawn.")
        image = gr.Image(
            value=str(picture) if picture else None, type="filepath", label="Picture",
            sources=["upload", "clipboard"], height=320,
        )  # fmt: skip
        question = gr.Textbox(label="Question", elem_id="question", max_lines=4)
        button = gr.Button("Ask", elem_id="ask", variant="primary")
        outputs = []
        with gr.Row():
            for number, speaker in enumerate(speakers):
                with gr.Column():
                    outputs.append(
                        gr.Textbox(label=speaker.name, elem_id=f"answer-{number}", lines=3)
                    )
                    outputs.append(
                        gr.Image(label="Boxes", elem_id=f"boxes-{number}", interactive=False)
                    )
        for event in (button.click, question.submit):
            event(ask, [image, question], outputs, api_name=False)
    return page


def _free(ports: Sequence[int]) -> int:
    """The first port that nobody listens on.

    Raises
    ------
    OSError: there is none.
    """
    import socket

    for port in ports:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((ADDRESS, port))
            except OSError as error:
                last = error
                continue
            return port
    raise last
