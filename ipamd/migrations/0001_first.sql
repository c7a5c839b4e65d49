-- Facts about this database itself. boot_id: the kernel's boot id under which the leases were written;
-- after a reboot no sandbox lives, so leases of another boot are void.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row for each address that a pod holds. Written before the pod hears of it.
CREATE TABLE leases (
    network      TEXT    NOT NULL,
    container_id TEXT    NOT NULL,
    interface    TEXT    NOT NULL,
    namespace    TEXT    NOT NULL,
    pod          TEXT    NOT NULL,
    uid          TEXT    NOT NULL,
    netns        TEXT    NOT NULL,
    address      TEXT    NOT NULL UNIQUE,
    eni          TEXT    NOT NULL,
    eni_mark     INTEGER NOT NULL,
    since_ms     INTEGER NOT NULL,
    PRIMARY KEY (network, container_id, interface)
) STRICT;

-- Released addresses that may not be reused before until_ms (milliseconds since the Unix epoch).
CREATE TABLE cooling (
    address  TEXT    NOT NULL PRIMARY KEY,
    until_ms INTEGER NOT NULL
) STRICT;

-- Changes at EC2: written before the call, settled after it. outcome is NULL while it is open.
CREATE TABLE intents (
    id         TEXT    NOT NULL PRIMARY KEY,
    action     TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    settled_ms INTEGER,
    outcome    TEXT
) STRICT;
