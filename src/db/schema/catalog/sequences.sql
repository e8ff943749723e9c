-- Sequences that stand by themselves or belong to a serial column; that of an identity is part of it.
SELECT format('SEQUENCE %I', c.relname) AS identity,
       d.definition,
       format('CREATE SEQUENCE %I %s', c.relname, d.definition) AS create_sql,
       format('ALTER SEQUENCE %I %s', c.relname, d.definition) AS alter_sql,
       format('DROP SEQUENCE %I', c.relname) AS drop_sql,
       ARRAY[format('pg_class %s 0', c.oid)] AS addresses
FROM pg_class c
JOIN pg_sequence s ON s.seqrelid = c.oid
CROSS JOIN LATERAL (
    SELECT concat_ws(' ', format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s',
                                 format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache),
                     CASE WHEN NOT s.seqcycle THEN 'NO' END, 'CYCLE') AS definition) d
WHERE c.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('i', 'e'));
