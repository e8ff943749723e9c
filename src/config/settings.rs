//! The table of settings: what `--help` and README say of each.

/// What can be set, with its form, default and meaning: the table of `--help` and README.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "DATABASE_URL",
        form: "postgres://user:password@host:5432/database",
        default: "",
        meaning: "The PostgreSQL database (12 or later); ?sslmode=verify-full&sslrootcert=FILE for TLS. DATABASE_URL_FILE names a file that holds it.",
    },
    Setting {
        name: "DATABASE_POOLER",
        form: "none or transaction",
        default: "none",
        meaning: "What DATABASE_URL leads to: PostgreSQL itself, or a pooler such as PgBouncer in transaction mode.",
    },
    Setting {
        name: "DATABASE_DIRECT_URL",
        form: "postgres://user:password@host:5432/database",
        default: "DATABASE_URL",
        meaning: "PostgreSQL itself, for migrations, every command but run, and what run does beside its batches (verify, forget): needed where DATABASE_URL leads to a pooler. DATABASE_DIRECT_URL_FILE names a file that holds it.",
    },
    Setting {
        name: "AMQP_URL",
        form: "amqp://user:password@host:5672/vhost",
        default: "",
        meaning: "The RabbitMQ broker (3.10 or later); amqps:// and ?cacertfile=FILE for TLS. AMQP_URL_FILE names a file that holds it.",
    },
    Setting {
        name: "PAXFLOW_HTTP_ADDR",
        form: "address:port",
        default: "127.0.0.1:9464",
        meaning: "Where run serves /livez, /readyz and /metrics.",
    },
    Setting {
        name: "PAXFLOW_EXCHANGE",
        form: "name",
        default: "paxflow.events",
        meaning: "Topic exchange that producers publish to.",
    },
    Setting {
        name: "PAXFLOW_QUEUE",
        form: "name",
        default: "paxflow.events",
        meaning: "Queue that workers consume; its dead-letter queue is NAME.dead.",
    },
    Setting {
        name: "PAXFLOW_CONSUMER",
        form: "shared, active or standby",
        default: "shared",
        meaning: "How this worker consumes the queue: together with others, or as the only one at a time. Of those, RabbitMQ 4 prefers an active one to a standby.",
    },
    Setting {
        name: "PAXFLOW_BATCH_MAX",
        form: "whole number, 1 to 10000",
        default: "1000",
        meaning: "Most events in one transaction.",
    },
    Setting {
        name: "PAXFLOW_BATCH_LINGER_MS",
        form: "milliseconds, 0 to 10000",
        default: "0",
        meaning: "How long a batch that is not full waits for more events while no other is being committed.",
    },
    Setting {
        name: "PAXFLOW_PREFETCH",
        form: "whole number, 1 to 65535",
        default: "2000",
        meaning: "Most unacknowledged deliveries a worker holds in memory.",
    },
    Setting {
        name: "DATABASE_POOL_SIZE",
        form: "whole number, 1 to 1000",
        default: "20",
        meaning: "Database connections that are kept.",
    },
    Setting {
        name: "DATABASE_MAX_OVERFLOW",
        form: "whole number, 0 to 1000",
        default: "10",
        meaning: "Extra connections under load, closed when they are returned.",
    },
    Setting {
        name: "DATABASE_POOL_RECYCLE_SECS",
        form: "seconds, 1 to 86400",
        default: "3600",
        meaning: "Age at which a connection is replaced.",
    },
    Setting {
        name: "PAXFLOW_QUARANTINE_DAYS",
        form: "days, 0 to 36500",
        default: "90",
        meaning: "How long quarantined events are kept once they are replayed or discarded; 0 keeps them. Open ones stay.",
    },
    Setting {
        name: "PAXFLOW_VERIFY_EVERY_SECS",
        form: "seconds, 0 to 604800",
        default: "3600",
        meaning: "How often the workers verify MarketData in the background, one of them at a time; 0 is never.",
    },
    Setting {
        name: "PAXFLOW_LOG",
        form: "filter such as info or paxflow=debug",
        default: "info",
        meaning: "Which log lines are written (to stderr).",
    },
    Setting {
        name: "PAXFLOW_LOG_FORMAT",
        form: "text or json",
        default: "text on a terminal, json elsewhere",
        meaning: "Form of the log lines.",
    },
    Setting {
        name: "PAXFLOW_ENV",
        form: "name such as development or production",
        default: "development",
        meaning: "Where this runs; production refuses what destroys data, and sample data.",
    },
];

/// One line of the configuration table.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Variable of the environment.
    pub name: &'static str,
    /// What a value looks like.
    pub form: &'static str,
    /// What holds when it is not set; empty if a command that needs it fails without.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// The line of a setting.
pub(super) fn setting(name: &str) -> &'static Setting {
    const UNKNOWN: &Setting = &Setting {
        name: "",
        form: "",
        default: "",
        meaning: "",
    };
    SETTINGS
        .iter()
        .find(|setting| setting.name == name)
        .unwrap_or(UNKNOWN)
}
