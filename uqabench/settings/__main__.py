"""`python -m uqabench.settings > docs/settings.md`: the page of all settings."""

from uqabench.settings.listing import page

print(page(), end="")
