-- Who needs whom, by address. Objects that initdb made stay what they are.
SELECT DISTINCT
       CASE WHEN s.oid IS NOT NULL THEN format('owned by %s', s.oid)
            ELSE format('%s %s %s', d.classid::regclass, d.objid, d.objsubid) END AS dependent,
       format('%s %s %s', d.refclassid::regclass, d.refobjid, d.refobjsubid) AS needed
FROM pg_depend d
-- A sequence does not need the column that it goes away with; only that tie does.
LEFT JOIN pg_class s ON d.classid = 'pg_class'::regclass AND s.oid = d.objid AND s.relkind = 'S' AND d.deptype = 'a'
WHERE d.objid >= 16384 AND d.refobjid >= 16384
  AND d.deptype IN ('n', 'a', 'i')
UNION
-- A primary key needs its columns to be NOT NULL.
SELECT format('pg_constraint %s 0', k.oid), format('not null %s %s', k.conrelid, c.attnum)
FROM pg_constraint k
CROSS JOIN LATERAL unnest(k.conkey) AS c (attnum)
WHERE k.contype = 'p'
UNION
-- An identity too.
SELECT format('pg_class %s 0', d.objid), format('not null %s %s', d.refobjid, d.refobjsubid)
FROM pg_depend d
JOIN pg_class s ON d.classid = 'pg_class'::regclass AND s.oid = d.objid AND s.relkind = 'S'
WHERE d.deptype = 'i' AND d.refobjsubid > 0;
