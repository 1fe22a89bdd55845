"""File name suffixes of videos."""

from __future__ import annotations

__all__ = ["VIDEO_SUFFIXES"]

VIDEO_SUFFIXES = frozenset(
    {
        *(".3g2", ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
        *(".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)
"""Suffixes by which a file is taken for a video, lower case, each with its dot.

Ingestion lists the files of a folder by their suffixes, the query encoder refuses such names as texts, and the
benchmarks find their videos by them. Decoders go by the content: a file that is named itself may have any suffix.
Pictures that move (`.gif`) can be decoded, and are not listed.
"""
