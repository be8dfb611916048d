"""apex's names. MindSpeed replaces what it has, so that only the names have to be there."""
