"""The runner's codec against itself.

    python3 -m unittest discover -s Tests/Scenarios -p '*_test.py'
"""

import unittest

from content import PROPERTIES, decode_header, encode_header
from frame import BODY, METHOD, Frame, Splitter
from literal import Scanner, print_table
from methods import METHODS
from script import SEPARATOR
from stage import adopt
from table import Malformed, Reader, table_bytes
from trace import ranges

EVERY_TYPE = (
    '{string=text, "a key"="7", empty="", long=-5, unsigned=i:4000000000, longlong=l:-9000000000, '
    'short=s:-300, ushort=u:60000, byte=b:-7, octet=B:200, double=d:1.5, float=f:0.25, yes=true, '
    'word="true", decimal=D:2/314, time=T:1700000000, table={inner={deep=1}}, list=[1, two, [3]], '
    'bytes=x:"\\x00\\xff", nothing=void, typed="l:5", same="ab"*50}'
)
VALUES = {"bit": True, "octet": 200, "short": 60000, "long": 4000000000, "longlong": 1 << 60,
          "shortstr": "größe", "longstr": "\x00text"}


class CodecTest(unittest.TestCase):
    def table(self):
        return Scanner(EVERY_TYPE).table()

    def test_a_literal_is_printed_as_it_was_written(self):
        self.assertEqual(print_table(self.table()), EVERY_TYPE)

    def test_tables_survive_the_wire(self):
        self.assertEqual(Reader(table_bytes(self.table())).table(), self.table())

    def test_every_truncation_of_a_table_is_malformed(self):
        data = table_bytes(self.table())
        for length in range(len(data)):
            with self.assertRaises(Malformed):
                Reader(data[:length]).table()

    def test_every_method_survives_the_wire(self):
        for method in METHODS.by_name.values():
            arguments = {name: VALUES.get(type, []) for name, type in method.fields}
            reader = Reader(method.encode(arguments))
            self.assertEqual((reader.number(">H"), reader.number(">H")),
                             (method.class_id, method.method_id))
            self.assertEqual(method.decode(reader), arguments)
            self.assertEqual(reader.remaining, 0)

    def test_every_property_survives_the_wire(self):
        properties = {name: VALUES.get(type, self.table()) for name, type in PROPERTIES.items()}
        self.assertEqual(decode_header(encode_header(7, properties)), (7, properties))
        for name in PROPERTIES:
            one = {name: properties[name]}
            self.assertEqual(decode_header(encode_header(0, one)), (0, one))

    def test_frames_are_found_however_the_bytes_are_cut(self):
        frames = [Frame(METHOD, 1, b"abc"), Frame(BODY, 65535, b""), Frame(BODY, 2, b"x" * 300)]
        data = b"".join(frame.encode() for frame in frames)
        for step in (1, 7, len(data)):
            splitter = Splitter()
            found = []
            for start in range(0, len(data), step):
                found += splitter.push(data[start:start + step])
            self.assertEqual(found, frames)
            self.assertFalse(splitter.pending)


class TraceTest(unittest.TestCase):
    def test_tags_are_shown_as_ranges(self):
        self.assertEqual(ranges({1, 2, 3, 5, 9, 8}), "1-3,5,8-9")

    def test_a_pattern_stands_for_the_line_that_it_matches(self):
        self.assertEqual(adopt(["~ a <- x *[1]"], ["a <- x y [1]", "a <- x y 1"]),
                         ["~ a <- x *[1]", "a <- x y 1"])

    def test_a_separator_may_name_a_product(self):
        self.assertEqual(SEPARATOR.match("---- rabbitmq: why").groups(), ("rabbitmq", "why"))
        self.assertEqual(SEPARATOR.match("----").groups(), (None, None))


if __name__ == "__main__":
    unittest.main()
