-- What autogenerate does not write: named, so that a difference is never passed over in silence.
WITH other AS (
    SELECT 'pg_class'::regclass AS classid, c.oid, pg_describe_object('pg_class'::regclass, c.oid, 0) AS identity,
           concat_ws(' ', CASE c.relkind WHEN 'm' THEN pg_get_viewdef(c.oid, true) END, pg_get_partkeydef(c.oid),
                     (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                                                  CASE WHEN a.attnotnull THEN 'NOT NULL' END), ', ' ORDER BY a.attnum)
                      FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND c.relkind IN ('p', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped),
                     (SELECT string_agg(pg_get_indexdef(i.indexrelid), ', ' ORDER BY i.indexrelid::regclass::text)
                      FROM pg_index i
                      WHERE i.indrelid = c.oid AND c.relkind IN ('m', 'p'))) AS definition
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace
      AND (c.relkind IN ('m', 'p', 'f', 'c')
           OR c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)))
    UNION ALL
    -- What is in another schema is not compared, but that there is one.
    SELECT 'pg_namespace'::regclass, n.oid, pg_describe_object('pg_namespace'::regclass, n.oid, 0), NULL
    FROM pg_namespace n
    WHERE n.nspname NOT IN ('public', 'information_schema') AND n.nspname !~ '^pg_'
    UNION ALL
    SELECT 'pg_collation'::regclass, l.oid, pg_describe_object('pg_collation'::regclass, l.oid, 0), NULL
    FROM pg_collation l
    WHERE l.collnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'pg_ts_config'::regclass, t.oid, pg_describe_object('pg_ts_config'::regclass, t.oid, 0), NULL
    FROM pg_ts_config t
    WHERE t.cfgnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'pg_operator'::regclass, p.oid, pg_describe_object('pg_operator'::regclass, p.oid, 0), p.oprcode::text
    FROM pg_operator p
    WHERE p.oprnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'pg_publication'::regclass, p.oid, pg_describe_object('pg_publication'::regclass, p.oid, 0),
           concat_ws(' ', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
                     (SELECT string_agg(r.prrelid::regclass::text, ', ' ORDER BY r.prrelid::regclass::text)
                      FROM pg_publication_rel r
                      WHERE r.prpubid = p.oid))
    FROM pg_publication p
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, format('replica identity of %s', c.oid::regclass),
           concat_ws(' ', c.relreplident, (SELECT i.indexrelid::regclass FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident))
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relreplident <> 'd'
    UNION ALL
    SELECT 'pg_attrdef'::regclass, d.oid, pg_describe_object('pg_attrdef'::regclass, d.oid, 0), pg_get_expr(d.adbin, d.adrelid, true)
    FROM pg_attrdef d
    JOIN pg_class c ON c.oid = d.adrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
    UNION ALL
    SELECT 'pg_event_trigger'::regclass, t.oid, pg_describe_object('pg_event_trigger'::regclass, t.oid, 0),
           concat_ws(' ', t.evtevent, t.evtfoid::regproc)
    FROM pg_event_trigger t
    UNION ALL
    -- Enums, domains and ranges.
    SELECT 'pg_type'::regclass, t.oid, pg_describe_object('pg_type'::regclass, t.oid, 0),
           concat_ws(' ', format_type(nullif(t.typbasetype, 0), t.typtypmod), t.typdefault,
                     CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                     (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid),
                     (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
                      FROM pg_enum e WHERE e.enumtypid = t.oid),
                     (SELECT string_agg(pg_get_constraintdef(k.oid, true), ', ' ORDER BY k.conname)
                      FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
    FROM pg_type t
    WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd', 'r')
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, format('aggregate %s', p.oid::regprocedure),
           concat_ws(' ', a.aggtransfn, a.aggtranstype::regtype, a.aggfinalfn, a.agginitval)
    FROM pg_proc p
    LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
    WHERE p.pronamespace = 'public'::regnamespace AND p.prokind IN ('a', 'w')
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, pg_describe_object('pg_policy'::regclass, p.oid, 0),
           concat_ws(' ', p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid, true),
                     pg_get_expr(p.polwithcheck, p.polrelid, true),
                     (SELECT string_agg(coalesce(nullif(role, 0)::regrole::text, 'public'), ', ' ORDER BY role)
                      FROM unnest(p.polroles) AS role))
    FROM pg_policy p
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, format('row security of %s', c.oid::regclass),
           CASE WHEN c.relforcerowsecurity THEN 'forced' END
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relrowsecurity
    UNION ALL
    SELECT 'pg_rewrite'::regclass, r.oid, pg_describe_object('pg_rewrite'::regclass, r.oid, 0),
           pg_get_ruledef(r.oid, true)
    FROM pg_rewrite r
    JOIN pg_class c ON c.oid = r.ev_class
    WHERE c.relnamespace = 'public'::regnamespace AND r.rulename <> '_RETURN'
    UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid, pg_describe_object('pg_statistic_ext'::regclass, s.oid, 0),
           pg_get_statisticsobjdef(s.oid)
    FROM pg_statistic_ext s
    WHERE s.stxnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'pg_extension'::regclass, e.oid, format('extension %s', e.extname), e.extversion
    FROM pg_extension e
    WHERE e.extname <> 'plpgsql'
)
SELECT o.identity, coalesce(o.definition, '') AS definition
FROM other o
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.oid AND d.deptype = 'e');
