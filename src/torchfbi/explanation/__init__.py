"""From a network and an image to an ``Explanation``, saved, shown and put to the test."""
