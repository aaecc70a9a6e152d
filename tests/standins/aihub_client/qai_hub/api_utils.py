"""See client.py."""


def get_progress_bar(description, file_size, block_size, verbose):
    """The real one draws on standard error."""
