"""Is this backward rule right, and if not, where?"""

from refgrad.verify.allowance import allowance, longest_reduction
from refgrad.verify.check import assert_ok, check
from refgrad.verify.report import Report, Row
from refgrad.verify.rules import without_rules
from refgrad.verify.widen import widen

__all__ = ["Report", "Row", "allowance", "assert_ok", "check", "longest_reduction", "widen", "without_rules"]
