-- Leases that have ended: who held an address, and from when until when (milliseconds since the Unix epoch). A lease that
-- still runs is only in `leases`. Written in the transaction that ends the lease; bounded by age and by number of rows.
CREATE TABLE history (
    id           INTEGER PRIMARY KEY,
    network      TEXT    NOT NULL,
    container_id TEXT    NOT NULL,
    interface    TEXT    NOT NULL,
    namespace    TEXT    NOT NULL,
    pod          TEXT    NOT NULL,
    uid          TEXT    NOT NULL,
    address      TEXT    NOT NULL,
    eni          TEXT    NOT NULL,
    since_ms     INTEGER NOT NULL,
    until_ms     INTEGER NOT NULL,
    ended_by     TEXT    NOT NULL
) STRICT;

CREATE INDEX history_by_end ON history (until_ms);
