"""The two photos that come along, to try things on; ``LICENSE.txt`` says whose they are."""

from pathlib import Path

CAT = Path(__file__).with_name("cat.jpg")
COFFEE = Path(__file__).with_name("coffee.jpg")
