"""Scripts that break things at random and look whether anything was lost; the tests run them for a short while.

`python -m tests.chaos.mirror` and `python -m tests.chaos.erasure` run them for as long as one likes.
"""
