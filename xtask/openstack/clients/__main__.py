"""Drives OpenStack's own clients through every resource of the network API, as two projects that must not see each
other, a reader and an administrator.

    python clients KEYSTONE_URL [NAME ...]    (NAME: only these tests)
"""
import sys
import time
import traceback

import commands
import sdk
from people import Person


def main():
    keystone, only = sys.argv[1], sys.argv[2:]
    red, blue = Person(keystone, "red", "red"), Person(keystone, "blue", "blue")
    reader, admin = Person(keystone, "red-reader", "red"), Person(keystone, "admin", "admin")
    tests = [(f"{module.__name__}.{test.__name__}", test) for module in (commands, sdk) for test in module.ALL]
    nova = Person(keystone, "neutron", "service")
    tests.append(("sdk.ports", lambda *_: sdk.ports(red, blue, nova)))
    tests.append(("commands.readers", lambda *_: commands.readers(red, reader)))
    failed = 0
    for name, test in tests:
        if only and name not in only:
            continue
        begin = time.monotonic()
        try:
            test(red, blue, admin)
            word = "ok"
        except Exception:
            failed += 1
            word = "FAILED"
            traceback.print_exc(file=sys.stdout)
        print(f"{name}: {word} ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"{failed} failed" if failed else "all passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
