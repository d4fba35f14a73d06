"""Answers by what was asked, so that nothing is asked twice; imports no engine and no torch."""
