-- Which column a sequence goes away with.
SELECT format('SEQUENCE %I OWNED BY', s.relname) AS identity,
       format('SEQUENCE %I', s.relname) AS owner,
       format('%I.%I', c.relname, a.attname) AS definition,
       format('ALTER SEQUENCE %I OWNED BY %I.%I', s.relname, c.relname, a.attname) AS create_sql,
       format('ALTER SEQUENCE %I OWNED BY NONE', s.relname) AS drop_sql,
       ARRAY[format('owned by %s', s.oid)] AS addresses
FROM pg_class s
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype = 'a'
    AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
JOIN pg_class c ON c.oid = d.refobjid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
WHERE s.relnamespace = 'public'::regnamespace AND s.relkind = 'S';
