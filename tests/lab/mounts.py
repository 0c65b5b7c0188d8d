"""Small file systems to fill and to break; only root may mount them."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN in linux/ext4.h

IS_ROOT = os.geteuid() == 0


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """A file system in memory, of so many bytes ("256k"), over this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0750", "msgd-test", str(folder))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


def resize(folder: Path, size: str) -> None:
    """Make the file system larger or smaller while it is in use."""
    _run("mount", "-o", f"remount,size={size}", str(folder))


def make_read_only(folder: Path) -> None:
    _run("mount", "-o", "remount,ro", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def ext4(image: Path, folder: Path) -> Iterator[None]:
    """A new ext4 file system in a file, on a loop device, over this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(64 << 20)
    _run("mkfs.ext4", "-q", "-F", str(image))
    mount_ext4(image, folder)
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


def mount_ext4(image: Path, folder: Path) -> None:
    _run("mount", "-o", "loop", str(image), str(folder))


def can_mount_ext4() -> bool:
    """Whether this machine lets us: root, mkfs.ext4, and loop devices."""
    return IS_ROOT and shutil.which("mkfs.ext4") is not None and Path("/dev/loop-control").exists()


def cut_power(folder: Path) -> None:
    """Stop the file system at once: nothing more reaches its device, not even the journal.

    What follows fails with EIO, as when the disk is gone.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


def mount_again(image: Path, folder: Path) -> None:
    """After `cut_power`, once no process has files open there.

    What the disk holds is copied: a program that was started in a mount namespace of its own has
    the old file system in it, and with that its loop device, which would be mounted once more.
    """
    _run("umount", str(folder))
    copy = image.with_suffix(".copy")
    _run("cp", "--sparse=always", str(image), str(copy))
    copy.replace(image)
    mount_ext4(image, folder)
