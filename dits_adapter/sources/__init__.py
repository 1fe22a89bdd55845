"""Sources of pairs: where texts for videos come from, each ending in the same file of pairs.

`find_pairs` goes through videos with a `TextFinder`; `write_pairs` takes lines that are no video's alone.
"""
