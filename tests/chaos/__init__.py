"""Scripts that inject random failures and check that nothing is lost; the tests run them briefly.

Run `python -m tests.chaos.mirror` and `python -m tests.chaos.erasure` for any duration.
"""
