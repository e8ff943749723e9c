INSERT INTO owners (code, rank, note) VALUES ('ann', 1, 'first'), ('bob', 20, 'second'), ('eve', 300, 'third');
INSERT INTO things (owner_id, code, weight, price, "Odd one")
    VALUES (1, 'ann', 12.5, 7, 'one'), (1, 'bob', 3.25, 8, 'two'), (3, 'eve', 99.99, 9, NULL);
INSERT INTO hens VALUES (1, NULL);
INSERT INTO eggs VALUES (1, 1);
UPDATE hens SET egg_id = 1;
INSERT INTO journal VALUES ('a'), ('b');
