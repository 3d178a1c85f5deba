# SPDX-License-Identifier: GPL-2.0-only
"""First packets of clients and servers, and what is to be made of them."""

from __future__ import annotations

from relaykit import ACCEPT, REQUEST, REWRITTEN, correlation, negotiation, x224

COOKIE = b"Cookie: mstshash=somebody\r\n"
TOKEN = b"Cookie: msts=3640205228.15629.0000\r\n"
NONE, IS_COOKIE, IS_TOKEN = range(3)

# name: (bytes, what is expected of the packet at their start, rewritten bytes)
WHOLE: dict[str, tuple[bytes, str, bytes]] = {
    "the published capture": (REQUEST, f"19 {NONE} 11 0 11 0", REWRITTEN),
    "freerdp asks for less": (x224(0xe0, negotiation(3)), f"19 {NONE} 11 0 3 0",
                              x224(0xe0, negotiation(0))),
    "credssp alone": (x224(0xe0, negotiation(2)), f"19 {NONE} 11 0 2 0",
                      x224(0xe0, negotiation(0))),
    "nothing to rewrite": (REWRITTEN, f"19 {NONE} 11 0 0 0", REWRITTEN),
    "bits nobody knows": (x224(0xe0, negotiation(0xffffffff, 0xf7)),
                          f"19 {NONE} 11 247 4294967295 0", x224(0xe0, negotiation(0))),
    "no RDP_NEG_REQ": (x224(0xe0), f"11 {NONE} 0 0 0 0", x224(0xe0)),
    "a cookie alone": (x224(0xe0, COOKIE), f"38 {IS_COOKIE} 0 0 0 0", x224(0xe0, COOKIE)),
    "cookie": (x224(0xe0, COOKIE + negotiation(11)), f"46 {IS_COOKIE} 38 0 11 0",
               x224(0xe0, COOKIE + negotiation(0))),
    "an empty cookie": (x224(0xe0, b"Cookie: mstshash=\r\n" + negotiation(11)),
                        f"38 {IS_COOKIE} 30 0 11 0",
                        x224(0xe0, b"Cookie: mstshash=\r\n" + negotiation(0))),
    "a cookie with bytes like a negotiation": (
        x224(0xe0, b"Cookie: mstshash=" + negotiation(11) + b"\r\n" + negotiation(11)),
        f"46 {IS_COOKIE} 38 0 11 0",
        x224(0xe0, b"Cookie: mstshash=" + negotiation(11) + b"\r\n" + negotiation(0))),
    "routing token": (x224(0xe0, TOKEN + negotiation(11)), f"55 {IS_TOKEN} 47 0 11 0",
                      x224(0xe0, TOKEN + negotiation(0))),
    "a routing token alone": (x224(0xe0, TOKEN), f"47 {IS_TOKEN} 0 0 0 0", x224(0xe0, TOKEN)),
    "an empty line": (x224(0xe0, b"\r\n" + negotiation(1)), f"21 {IS_TOKEN} 13 0 1 0",
                      x224(0xe0, b"\r\n" + negotiation(0))),
    "correlation info": (x224(0xe0, negotiation(11, 8) + correlation()), f"55 {NONE} 11 8 11 1",
                         x224(0xe0, negotiation(0, 8) + correlation())),
    "correlation info and all flags": (
        x224(0xe0, COOKIE + negotiation(11, 0xff) + correlation()), f"82 {IS_COOKIE} 38 255 11 1",
        x224(0xe0, COOKIE + negotiation(0, 8) + correlation())),
    "restricted administration": (x224(0xe0, negotiation(11, 1)), f"19 {NONE} 11 1 11 0",
                                  x224(0xe0, negotiation(0))),
    "something new at the end": (x224(0xe0, negotiation(11) + b"new"), f"22 {NONE} 11 0 11 0",
                                 x224(0xe0, negotiation(0) + b"new")),
    "the longest": (x224(0xe0, b"x" * 238 + b"\r\n" + negotiation(11)),
                    f"259 {IS_TOKEN} 251 0 11 0",
                    x224(0xe0, b"x" * 238 + b"\r\n" + negotiation(0))),
    "data behind it": (REQUEST + REQUEST, f"19 {NONE} 11 0 11 0", REWRITTEN + REQUEST),
    "references and class": (bytes.fromhex("030000130ee01234567802010008000b000000"),
                             f"19 {NONE} 11 0 11 0",
                             bytes.fromhex("030000130ee012345678020100080000000000")),
}

# name: (bytes, after how many it is refused, a word of the reason)
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "TLS hello": (bytes.fromhex("16030100c8010000c40303"), 1, "TLS handshake"),
    "TLS alert": (bytes.fromhex("15030100020228"), 1, "TLS alert"),
    "CredSSP": (bytes.fromhex("3037a003020106"), 1, "CredSSP"),
    "HTTP": (b"GET / HTTP/1.0\r\n\r\n", 1, "not a TPKT packet"),
    "zeros": (bytes(32), 1, "not a TPKT packet"),
    "MCS without a connection": (bytes.fromhex("0300019a02f0807f65"), 6, "X.224 data"),
    "a confirm": (ACCEPT, 6, "X.224 connection confirm"),
    "a disconnect request": (x224(0x80), 6, "X.224 disconnect request"),
    "no X.224": (x224(0x10), 6, "not X.224"),
    "an empty packet": (bytes.fromhex("03000004"), 4, "too short"),
    "length 0": (bytes.fromhex("03000000"), 4, "too short"),
    "no room for a code": (bytes.fromhex("0300000500"), 4, "too short"),
    "a short request": (x224(0xe0, length=10, li=5), 6, "too short"),
    "a long request": (x224(0xe0, bytes(249)), 6, "too long"),
    "a very long request": (x224(0xe0, length=0xffff, li=254), 6, "too long"),
    "li too small": (x224(0xe0, negotiation(11), li=6), 6, "lengths disagree"),
    "li too large": (x224(0xe0, negotiation(11), li=15), 6, "lengths disagree"),
    "li 0": (x224(0xe0, li=0), 6, "lengths disagree"),
    "length too small": (x224(0xe0, negotiation(11), length=18), 6, "lengths disagree"),
    "length too large": (x224(0xe0, negotiation(11), length=20), 6, "lengths disagree"),
    "a cookie without end": (x224(0xe0, b"Cookie: mstshash=a"), 29, "does not end"),
    "a cookie with half an end": (x224(0xe0, b"Cookie: mstshash=a\r"), 30, "does not end"),
    "a cookie whose end lies behind": (x224(0xe0, b"Cookie: mstshash=a\r") + b"\n", 30,
                                       "does not end"),
    "half a negotiation": (x224(0xe0, negotiation(11)[:7]), 18, "malformed RDP_NEG_REQ"),
    "one byte behind the cookie": (x224(0xe0, COOKIE + b"\1"), 39, "malformed RDP_NEG_REQ"),
    "not a negotiation": (x224(0xe0, COOKIE + negotiation(11, kind=2)), 46,
                          "malformed RDP_NEG_REQ"),
    "a negotiation of wrong size": (x224(0xe0, negotiation(11, size=9)), 19,
                                    "malformed RDP_NEG_REQ"),
    "no correlation info": (x224(0xe0, negotiation(11, 8)), 19, "correlation info"),
    "half a correlation info": (x224(0xe0, negotiation(11, 8) + correlation()[:35]), 54,
                                "correlation info"),
    "a correlation info of wrong size": (x224(0xe0, negotiation(11, 8) + correlation(35)), 55,
                                         "correlation info"),
}

NO_NEGOTIATION, SELECTED, FAILURE = range(3)
ANSWERS: dict[str, tuple[bytes, str]] = {
    "accepts": (ACCEPT, f"answer {SELECTED} 0"),
    "tls": (x224(0xd0, negotiation(1, kind=2)), f"answer {SELECTED} 1"),
    "flags": (x224(0xd0, negotiation(2, 0x1f, kind=2)), f"answer {SELECTED} 2"),
    "no negotiation": (x224(0xd0), f"answer {NO_NEGOTIATION} 0"),
    "failure": (x224(0xd0, negotiation(5, kind=3)), f"answer {FAILURE} 5"),
    "data behind it": (ACCEPT + b"more", f"answer {SELECTED} 0"),
    "not whole": (ACCEPT[:-1], "more"),
    "nothing": (b"", "more"),
    "a request": (REQUEST, "refused 6 an X.224 connection request"),
    "disconnect": (x224(0x80), "refused 6 an X.224 disconnect request"),
    "tls hello": (b"\x16\x03\x01", "refused 1 a TLS handshake"),
    "text": (b"SSH-2.0-OpenSSH", "refused 1 not a TPKT packet"),
    "half a negotiation": (x224(0xd0, negotiation(0, kind=2)[:7]), "refused 18 an X.224 confirm"
                           " with a malformed negotiation part"),
    "unknown negotiation": (x224(0xd0, negotiation(0, kind=4)), "refused 19 an X.224 confirm with"
                            " a malformed negotiation part"),
    "wrong size": (x224(0xd0, negotiation(0, kind=2, size=7)), "refused 19 an X.224 confirm with"
                   " a malformed negotiation part"),
}
