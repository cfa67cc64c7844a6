"""Pages of Markdown that are written by hand but for some tables: each stands between two comments.

<!-- rooms -->

| room | holds |
...

<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from prn_jax.errors import PrnError

_TABLE = re.compile(r"<!-- ([a-z][\w: ]*) -->\n.*?<!-- end -->", re.DOTALL)


def filled(page: str, tables: Mapping[str, str]) -> str:
  """The page with its tables made anew.

  Args:
    page: Markdown.
    tables: name of a table, as the comment before it says -> the lines that stand there.

  Raises:
    PrnError: the page asks for a table that is not among them.
  """

  def table(found: re.Match[str]) -> str:
    name = found[1]
    if name not in tables:
      raise PrnError(f"the page asks for table '{name}'; the results have {', '.join(tables) or 'none'}.")
    return f"<!-- {name} -->\n\n{tables[name].rstrip()}\n\n<!-- end -->"

  return _TABLE.sub(table, page)
