"""The web page: photos in, explanations out, by clicking.

Needs the extra ``web``. Everything runs on this machine: the page loads nothing from elsewhere,
photos and answers stay in memory and are forgotten.
"""
