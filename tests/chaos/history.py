"""The lab's format of histories, under the name by which the chaos tests know it."""

from qnwis.lab.history import Event as Event
from qnwis.lab.history import History as History
from qnwis.lab.history import Kind as Kind
from qnwis.lab.history import by_time as by_time
from qnwis.lab.history import from_line as from_line
from qnwis.lab.history import read_history as read_history
from qnwis.lab.history import to_line as to_line
from qnwis.lab.history import write_history as write_history
