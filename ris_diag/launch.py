"""What torchrun tells a process of the others; imports nothing, so that anybody may ask."""

import os


def several_processes() -> bool:
    """Whether torchrun started this process and others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks_another() -> bool:
    """Whether another process of the same launch speaks for this one."""
    return several_processes() and os.environ.get("RANK", "0") != "0"
