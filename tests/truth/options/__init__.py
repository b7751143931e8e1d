"""Every option of every part against a reference of its own, and the mistakes it must notice.

A check is a plain function of a kit, which names the modules of the library. It takes everything
from the kit, so that it can be run in a copy of the package that holds a mistake.
"""
