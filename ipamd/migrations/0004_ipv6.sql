-- The second address of a pod that has one of each family: then `address` is the IPv4 one. Empty: it has one only, of either family.
ALTER TABLE leases ADD COLUMN ipv6 TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX leases_by_ipv6 ON leases (ipv6) WHERE ipv6 <> '';
ALTER TABLE history ADD COLUMN ipv6 TEXT NOT NULL DEFAULT '';
