-- Comments, each at the address of what it is on; named here where that is only a part of an object.
SELECT format('%s %s %s', d.classoid::regclass, d.objoid, d.objsubid) AS address,
       CASE WHEN c.relkind = 'v' AND a.attnum IS NOT NULL THEN format('COLUMN %I.%I', c.relname, a.attname)
            WHEN c.relkind = 'i' THEN format('INDEX %I', c.relname) END AS part,
       d.objsubid AS position,
       quote_literal(d.description) AS literal
FROM pg_description d
LEFT JOIN pg_class c ON d.classoid = 'pg_class'::regclass AND c.oid = d.objoid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
WHERE d.classoid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass)
  AND d.objoid >= 16384; -- the first number that initdb does not give
