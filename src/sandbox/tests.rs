//! Against real servers: what a sandbox starts, survives and leaves behind.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;

#[tokio::test]
async fn both_servers_keep_port_and_data_over_a_restart_and_leave_nothing() {
    let mut sandbox = Sandbox::start(&Options::default()).await.unwrap();
    let url = sandbox.create_database("another").await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        .execute(&mut connection)
        .await
        .unwrap();

    for shutdown in [Shutdown::Graceful, Shutdown::Kill] {
        sandbox.postgres_stop(shutdown).await.unwrap();
        assert!(PgConnection::connect(&url).await.is_err());
        sandbox.postgres_start().await.unwrap();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let kept: i32 = sqlx::query_scalar("SELECT n FROM kept")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(kept, 7);

        sandbox.rabbitmq_stop(shutdown).await.unwrap();
        assert!(!broker_answers(sandbox.amqp_port).await);
        sandbox.rabbitmq_start().await.unwrap();
    }

    let left = Traces::of(&sandbox);
    let found = left.found();
    // Helpers of the servers come and go; these stay until they are stopped.
    for server in [sandbox.postgres_pid(), sandbox.rabbitmq_pid()] {
        assert!(found.contains(&server.unwrap().to_string()), "{found:?}");
    }
    for dir in &left.dirs {
        assert!(found.contains(&dir.display().to_string()), "{found:?}");
    }
    sandbox.stop().await.unwrap();
    left.gone().await;
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let options = Options {
        postgresql_settings: vec![("max_connections".into(), "many".into())],
        ..Options::default()
    };
    let error = Sandbox::start(&options).await.err().unwrap();
    assert!(
        format!("{error:#}").contains("max_connections"),
        "{error:#}"
    );
}

/// Every process and directory of a sandbox.
struct Traces {
    pids: Vec<u32>,
    dirs: Vec<PathBuf>,
}

impl Traces {
    fn of(sandbox: &Sandbox) -> Self {
        let keepers = [&sandbox.postgresql, &sandbox.rabbitmq];
        let mut pids: Vec<u32> = keepers
            .iter()
            .filter_map(|keeper| keeper.child.id())
            .collect();
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let processes: Vec<u32> = processes.collect();
        loop {
            let belongs =
                |pid: &u32| !pids.contains(pid) && kin(*pid).iter().any(|kin| pids.contains(kin));
            let more: Vec<u32> = processes.iter().copied().filter(belongs).collect();
            if more.is_empty() {
                break;
            }
            pids.extend(more);
        }
        for pid in [sandbox.postgres_pid(), sandbox.rabbitmq_pid()] {
            assert!(pids.contains(&pid.unwrap()));
        }
        pids.retain(|pid| keeper::is_alive(*pid));
        let dirs: Vec<PathBuf> = keepers.map(|keeper| keeper.dir.clone()).into();
        Self { pids, dirs }
    }

    /// Waits until nothing of it is left: the last signal may take a moment to arrive.
    async fn gone(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.found().is_empty() {
            assert!(Instant::now() < deadline, "left behind: {:?}", self.found());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn found(&self) -> Vec<String> {
        let pids = self
            .pids
            .iter()
            .filter(|pid| keeper::is_alive(**pid))
            .map(|pid| pid.to_string());
        let dirs = self
            .dirs
            .iter()
            .filter(|dir| dir.exists())
            .map(|dir| dir.display().to_string());
        pids.chain(dirs).collect()
    }
}

/// A process's parent and process group.
fn kin(pid: u32) -> Vec<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_the_name = stat.rsplit(')').next().unwrap_or_default();
    after_the_name
        .split_whitespace()
        .skip(1)
        .take(2)
        .filter_map(|word| word.parse().ok())
        .collect()
}
