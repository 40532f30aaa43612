-- LANs may have an IPv6 range beside their IPv4 one; and `driver` names a parent: `macvlan:eth0`.
ALTER TABLE lans ADD COLUMN subnet6 TEXT;
