"""The page says what the table says."""

from page import PAGE, page


def test_the_page_is_current():
    assert PAGE.read_text() == page(), "run `./dev conformance`"
