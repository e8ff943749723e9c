-- What operators need: the events set aside, what every worker has committed, and what verify found.

CREATE TABLE quarantined_events (
    id                bigint GENERATED ALWAYS AS IDENTITY,
    reason            text NOT NULL,
    path              text NOT NULL,
    detail            text NOT NULL,
    exchange          text NOT NULL,
    routing_key       text NOT NULL,
    content_type      text,
    content_encoding  text,
    message_id        text,
    headers           jsonb NOT NULL,
    body              bytea NOT NULL,
    sqlstate          text,
    contract_version  text NOT NULL,
    first_received_at timestamptz NOT NULL DEFAULT now(),
    last_received_at  timestamptz NOT NULL DEFAULT now(),
    times_received    bigint NOT NULL DEFAULT 1,
    state             text NOT NULL DEFAULT 'open',
    state_reason      text,
    state_changed_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT quarantined_events_pkey PRIMARY KEY (id),
    CONSTRAINT quarantined_events_state CHECK (state IN ('open', 'replayed', 'discarded'))
);

-- The same body for the same reason is one row. Hashed, since a body may be larger than an index entry.
CREATE UNIQUE INDEX quarantined_events_reason_body ON quarantined_events (reason, sha256(body));

COMMENT ON TABLE quarantined_events IS 'Events set aside because they break a rule of the contract: nothing is lost, each can be looked at and replayed. May hold personal data inside body.';
COMMENT ON COLUMN quarantined_events.id IS 'Number to name it by.';
COMMENT ON COLUMN quarantined_events.reason IS 'Reason code of the broken rule.';
COMMENT ON COLUMN quarantined_events.path IS 'JSON path of the offending place in the body.';
COMMENT ON COLUMN quarantined_events.detail IS 'What the contract expects there; never the offending value.';
COMMENT ON COLUMN quarantined_events.exchange IS 'Exchange it was published to.';
COMMENT ON COLUMN quarantined_events.routing_key IS 'Routing key it was published with.';
COMMENT ON COLUMN quarantined_events.content_type IS 'AMQP content_type, if set.';
COMMENT ON COLUMN quarantined_events.content_encoding IS 'AMQP content_encoding, if set.';
COMMENT ON COLUMN quarantined_events.message_id IS 'AMQP message_id, if set.';
COMMENT ON COLUMN quarantined_events.headers IS 'AMQP headers.';
COMMENT ON COLUMN quarantined_events.body IS 'The body exactly as received.';
COMMENT ON COLUMN quarantined_events.sqlstate IS 'SQLSTATE, where the database refused the row.';
COMMENT ON COLUMN quarantined_events.contract_version IS 'Version of the contract it was judged by.';
COMMENT ON COLUMN quarantined_events.first_received_at IS 'When it was first received.';
COMMENT ON COLUMN quarantined_events.last_received_at IS 'When it was last received.';
COMMENT ON COLUMN quarantined_events.times_received IS 'How often it was received.';
COMMENT ON COLUMN quarantined_events.state IS 'open, replayed or discarded.';
COMMENT ON COLUMN quarantined_events.state_reason IS 'Why it was discarded.';
COMMENT ON COLUMN quarantined_events.state_changed_at IS 'When state last changed.';

CREATE TABLE worker_progress (
    worker_id         text NOT NULL,
    started_at        timestamptz NOT NULL,
    last_commit_at    timestamptz NOT NULL,
    last_event_at     timestamptz,
    received          bigint NOT NULL,
    applied           bigint NOT NULL,
    duplicate         bigint NOT NULL,
    stale             bigint NOT NULL,
    folded            bigint NOT NULL,
    quarantined       bigint NOT NULL,
    batches           bigint NOT NULL,
    CONSTRAINT worker_progress_pkey PRIMARY KEY (worker_id),
    CONSTRAINT worker_progress_balances CHECK (received = applied + duplicate + stale + folded + quarantined)
) WITH (fillfactor = 10);

COMMENT ON TABLE worker_progress IS 'What every worker has committed, written in the same transaction as the events it counts: the verdict counts are exact over crashes.';
COMMENT ON COLUMN worker_progress.worker_id IS 'Host, process and start of the worker.';
COMMENT ON COLUMN worker_progress.started_at IS 'When the worker started.';
COMMENT ON COLUMN worker_progress.last_commit_at IS 'When its last batch was committed.';
COMMENT ON COLUMN worker_progress.last_event_at IS 'Newest CloudEvents time it has committed.';
COMMENT ON COLUMN worker_progress.received IS 'Deliveries settled by a commit: the sum of the verdicts.';
COMMENT ON COLUMN worker_progress.applied IS 'Events that changed a row.';
COMMENT ON COLUMN worker_progress.duplicate IS 'Events whose version was stored already with the same content.';
COMMENT ON COLUMN worker_progress.stale IS 'Events of a lower version than the stored one.';
COMMENT ON COLUMN worker_progress.folded IS 'Events whose key had a newer version in the same batch.';
COMMENT ON COLUMN worker_progress.quarantined IS 'Events set aside.';
COMMENT ON COLUMN worker_progress.batches IS 'Committed batches.';

CREATE TABLE verifications (
    id             bigint GENERATED ALWAYS AS IDENTITY,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL DEFAULT now(),
    row_count      bigint NOT NULL,
    drift_count    bigint NOT NULL,
    repaired_count bigint NOT NULL DEFAULT 0,
    CONSTRAINT verifications_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE verifications IS 'What each verify found.';
COMMENT ON COLUMN verifications.id IS 'Number of the run.';
COMMENT ON COLUMN verifications.started_at IS 'Moment of the snapshot that was verified.';
COMMENT ON COLUMN verifications.finished_at IS 'When it ended.';
COMMENT ON COLUMN verifications.row_count IS 'Rows of MarketData compared.';
COMMENT ON COLUMN verifications.drift_count IS 'Rows that differed.';
COMMENT ON COLUMN verifications.repaired_count IS 'Rows that were rebuilt.';
