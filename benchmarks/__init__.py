"""Programs that measure the pack beside its peers, in one run. They judge no time: they print both sides."""

from tools.pack import import_pack

import_pack()
