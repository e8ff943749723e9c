//! The broker ends connections, takes queues away, raises alarms, or says nothing.

use std::time::{Duration, Instant};

use paxflow::sandbox::Shutdown;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::harness::{BACK_WITHIN, Line, Rig, STOP_WITHIN, in_lanes, seeds, small_batches};
use super::proxy::Cut;
use super::wire::{ACK, BEGIN, CANCEL, COMMIT, CONSUME_ANSWERED, DEADLY, DELIVER};
use crate::process::{Place, Worker, generated, until};

/// Evaluates an expression in the private broker, as its operator would.
async fn eval(rig: &mut Rig, expression: &str) {
    control(rig, &["eval", expression]).await;
}

/// Runs `rabbitmqctl` with the environment that the broker itself has: its cookie, name and ports.
async fn control(rig: &mut Rig, arguments: &[&str]) {
    let broker = rig.servers().rabbitmq_pid().unwrap();
    let environment = std::fs::read(format!("/proc/{broker}/environ")).unwrap();
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
        let variable = std::str::from_utf8(variable).ok()?;
        variable.split_once('=')
    });
    let output = Command::new("rabbitmqctl")
        .args(arguments)
        .env_clear()
        .envs(variables)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Something new is committed after a fault that is over by now.
async fn assert_goes_on(rig: &mut Rig, worker: &Worker) {
    let (over, before) = (Instant::now(), rig.committed().await);
    rig.publish(10).await;
    rig.assert_goes_on(worker, over, before).await;
}

/// More than the broker has read when it raises the alarm.
#[tokio::test]
async fn who_publishes_into_an_alarm_is_told_and_goes_on_after_it() {
    let mut rig = Rig::private(1).await;
    let raise = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).";
    eval(&mut rig, raise).await;
    let events = generated(20_000, 5, 0.0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), events.join(&b'\n')).unwrap();
    let mut command = rig
        .place
        .paxflow(&["publish", file.path().to_str().unwrap()]);
    let mut publishing = command.spawn().unwrap();
    let mut said = BufReader::new(publishing.stderr.take().unwrap()).lines();
    let first = tokio::time::timeout(Duration::from_secs(60), said.next_line());
    let first = first.await.expect("it is told").unwrap().unwrap();
    assert!(
        first.contains("short of memory or disk; still waiting"),
        "{first}"
    );
    let clear = "rabbit_alarm:clear_alarm({resource_limit, memory, node()}).";
    eval(&mut rig, clear).await;
    assert!(publishing.wait().await.unwrap().success());
    let queue = rig.place.topology.queue.clone();
    assert_eq!(rig.place.waiting(&queue).await.ready, 20_000);
}

/// Its own connection of before may be one of those that the broker still counts.
#[tokio::test]
async fn a_limit_of_connections_or_channels_is_waited_out() {
    for seed in seeds(1) {
        let mut rig = Rig::private(seed).await;
        let worker = Worker::start(small_batches(&rig.place)).await;
        worker.ready().await;
        let none = [r#"{"max-connections": 0}"#, r#"{"max-channels": 0}"#];
        let user = "paxflow";
        let clear = |of| ["clear_user_limits", user, of];
        let (no_connections, no_channels) = (clear("max-connections"), clear("max-channels"));
        for (limit, told, end) in [
            (
                &["set_vhost_limits", none[0]][..],
                "connection limit",
                &["clear_vhost_limits"][..],
            ),
            (
                &["set_user_limits", user, none[0]],
                "connection limit",
                &no_connections,
            ),
            (
                &["set_user_limits", user, none[1]],
                "number of channels opened",
                &no_channels,
            ),
        ] {
            rig.hang_up();
            control(&mut rig, limit).await;
            control(&mut rig, &["close_all_connections", "fault"]).await;
            until("it tells the limit", async || {
                let (_, reason) = worker.get("/readyz").await;
                reason.contains(told).then_some(())
            })
            .await;
            control(&mut rig, end).await;
            assert_goes_on(&mut rig, &worker).await;
        }
        worker.stop().await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn whatever_the_broker_ends_is_begun_again() {
    for seed in seeds(1) {
        let mut rig = Rig::private(seed).await;
        let line = rig.line().await;
        let worker = line.worker().await;
        every_connection_is_closed_for_a_while(&mut rig, &worker).await;
        a_batch_outlasts_the_consumer_timeout(&mut rig, &line, &worker).await;
        alarms_are_raised(&mut rig, &line, &worker).await;
        the_broker_is_stopped(&mut rig, &line, &worker).await;
        the_queue_is_deleted(&mut rig, &line, &worker).await;
        worker.stop().await;
        rig.finish().await;
    }
}

async fn every_connection_is_closed_for_a_while(rig: &mut Rig, worker: &Worker) {
    rig.publish(600).await;
    rig.hang_up();
    eval(
        rig,
        "[begin [rabbit_networking:close_connection(C, \"fault\") || C <- rabbit_networking:connections()], \
          timer:sleep(1000) end || _ <- lists:seq(1, 30)].",
    )
    .await;
    assert_goes_on(rig, worker).await;
}

/// A batch takes longer than the broker allows.
async fn a_batch_outlasts_the_consumer_timeout(rig: &mut Rig, line: &Line, worker: &Worker) {
    eval(
        rig,
        "application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, channel_tick_interval, 500).",
    )
    .await;
    line.broker.cut(Cut::Reset);
    worker.ready().await;
    let trap = line.database.trap(COMMIT, 0);
    rig.publish(30).await;
    let held = trap.sprung_by(|| worker.log()).await;
    until("the broker has taken the channel", async || {
        let state = rig.place.waiting(&rig.place.topology.queue).await;
        (state.consumers == 0).then_some(())
    })
    .await;
    // Before the next channel is opened: each has the limit of its beginning.
    eval(
        rig,
        "application:set_env(rabbit, consumer_timeout, 1800000).",
    )
    .await;
    held.pass();
    assert_goes_on(rig, worker).await;
}

/// Consuming and acknowledging go on; only producers wait.
async fn alarms_are_raised(rig: &mut Rig, line: &Line, worker: &Worker) {
    for (raise, clear) in [
        (
            "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).",
            "rabbit_alarm:clear_alarm({resource_limit, memory, node()}).",
        ),
        (
            "rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []}).",
            "rabbit_alarm:clear_alarm({resource_limit, disk, node()}).",
        ),
    ] {
        let trap = line.database.trap(COMMIT, 0);
        rig.publish(60).await;
        let held = trap.sprung_by(|| worker.log()).await;
        rig.hang_up();
        eval(rig, raise).await;
        let before = rig.committed().await;
        held.pass();
        rig.place.committed_at_least(before + 40).await;
        assert_eq!(worker.get("/readyz").await.0, 200);
        eval(rig, clear).await;
        assert_goes_on(rig, worker).await;
    }
}

async fn the_broker_is_stopped(rig: &mut Rig, line: &Line, worker: &Worker) {
    for shutdown in [Shutdown::Graceful, Shutdown::Kill] {
        let trap = line.database.trap(COMMIT, 0);
        rig.publish(60).await;
        let held = trap.sprung_by(|| worker.log()).await;
        rig.hang_up();
        rig.servers().rabbitmq_stop(shutdown).await.unwrap();
        held.pass();
        let reason = worker.unready().await;
        assert!(reason.starts_with("broker: "), "{reason}");
        rig.servers().rabbitmq_start().await.unwrap();
        assert_goes_on(rig, worker).await;
    }
}

async fn the_queue_is_deleted(rig: &mut Rig, line: &Line, worker: &Worker) {
    // What was in it is gone with it: nothing, by now.
    rig.place.drained().await;
    let queue = rig.place.topology.queue.clone();
    let sessions = line.journal.count(CONSUME_ANSWERED);
    eval(
        rig,
        &format!("{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), rabbit_amqqueue:delete(Q, false, false, <<\"fault\">>)."),
    )
    .await;
    until("it has made it anew", async || {
        (line.journal.count(CONSUME_ANSWERED) > sessions).then_some(())
    })
    .await;
    let log = worker.log();
    assert!(log.contains("the broker ended the consumer"), "{log}");
    assert_goes_on(rig, worker).await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_is_made_anew() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let worker = Worker::start(small_batches(&rig.place)).await;
        worker.ready().await;
        rig.publish(30).await;
        // What is in it is gone with it: nothing, by now.
        rig.place.drained().await;
        rig.hang_up();
        rig.place.delete_queue().await;
        let again = until("it consumes again", async || {
            let sessions = worker.metric("paxflow_broker_sessions_total").await;
            (sessions == 2.0).then_some(())
        });
        let again = tokio::time::timeout(BACK_WITHIN, again).await;
        assert!(again.is_ok(), "liveness: {}", worker.log());
        assert_goes_on(&mut rig, &worker).await;
        worker.stop().await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_user_without_permission_ends_with_one_clear_line() {
    for seed in seeds(1) {
        let mut rig = Rig::private(seed).await;
        control(&mut rig, &["add_user", "barred", "secret"]).await;
        rig.publish(30).await;
        let (_, server) = rig.place.amqp_url.split_once('@').unwrap();
        let place = Place {
            amqp_url: format!("amqp://barred:secret@{server}"),
            ..rig.place.clone()
        };
        // No access to the virtual host; to nothing in it; not to what it has to read.
        for (permissions, said) in [
            (None, "NOT_ALLOWED"),
            (Some([".*", ".*", "none"]), "ACCESS_REFUSED"),
        ] {
            if let Some(patterns) = permissions {
                let arguments = [&["set_permissions", "barred"][..], &patterns].concat();
                control(&mut rig, &arguments).await;
            }
            let mut worker = Worker::spawn(small_batches(&place));
            let status = worker.exit_within(Duration::from_secs(30)).await;
            let log = worker.log();
            assert_eq!(status.code(), Some(1), "{log}");
            let lines: Vec<_> = log
                .lines()
                .filter(|line| line.starts_with("paxflow: "))
                .collect();
            assert!(lines.len() == 1 && lines[0].contains(said), "{log}");
            assert!(!log.contains("secret"), "{log}");
        }
        rig.finish().await;
    }
}

/// While a worker asks for more deliveries, too, it waits for the answer longer than for a goodbye.
#[tokio::test]
async fn a_broker_that_takes_its_time_keeps_its_session() {
    const SLOW: Duration = Duration::from_secs(4);
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let mut worker = line.worker().await;
        let held = rig.halted_at(line.broker.trap(CANCEL, 0), &worker).await;
        assert!(!worker.ends_within(SLOW).await, "{}", worker.log());
        held.pass();
        rig.place.drained().await;
        let sessions = worker.metric("paxflow_broker_sessions_total").await;
        assert_eq!(sessions, 1.0, "{}", worker.log());
        worker.stop().await;
        rig.finish().await;
    }
}

/// The broker would give it deliveries that nobody reads.
#[test]
fn a_consumer_whose_answer_comes_too_late_does_not_stay() {
    // The consumer of the start, and one with a wider prefetch.
    let consumers = [0, 1];
    let run = async |(before, seed)| {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let trap = line.broker.trap(CONSUME_ANSWERED, before);
        let worker = Worker::start(line.command()).await;
        rig.publish(300).await;
        let late = trap.sprung_by(|| worker.log()).await;
        until("it is waited for no longer", async || {
            worker.log().contains("no answer").then_some(())
        })
        .await;
        late.pass();
        rig.place.drained().await;
        until("one consumer is left", async || {
            let state = rig.place.waiting(&rig.place.topology.queue).await;
            (state.consumers == 1).then_some(())
        })
        .await;
        worker.stop().await;
        rig.finish().await;
    };
    in_lanes(consumers.into_iter().zip(seeds(2)), run);
}

#[tokio::test]
async fn a_stop_ends_in_time_where_the_broker_is_gone_and_the_database_hangs() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let mut worker = line.worker().await;
        let held = rig.halted_at(line.database.trap(BEGIN, 0), &worker).await;
        line.broker.cut(Cut::Reset);
        let reason = worker.unready().await;
        assert!(reason.starts_with("broker: "), "{reason}");
        worker.signal("TERM");
        let status = worker.exit_within(STOP_WITHIN).await;
        assert!(status.success(), "{}", worker.log());
        drop(held);
        rig.finish().await;
    }
}

/// An acknowledgement is one of all that came before.
#[tokio::test]
async fn a_delivery_that_does_not_come_through_is_not_acknowledged_with_those_after_it() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let trap = line.broker.trap(DELIVER, 40);
        let worker = line.worker().await;
        rig.publish(200).await;
        trap.sprung_by(|| worker.log()).await.lose_delivery();
        rig.place.drained().await;
        // The last event is one more.
        let received = rig.committed().await;
        let (log, published) = (worker.log(), rig.published as i64);
        assert!(received > published, "{received} of {published}\n{log}");
        worker.stop().await;
        rig.finish().await;
    }
}

/// It takes connections and says nothing.
#[tokio::test]
async fn a_silent_broker_is_given_up_and_asked_again() {
    for seed in seeds(1) {
        let rig = Rig::new(seed).await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let place = Place {
            amqp_url: format!("amqp://paxflow:x@{address}/%2f"),
            ..rig.place.clone()
        };
        let mut worker = Worker::start(small_batches(&place)).await;
        let mut taken = Vec::new();
        for _ in 0..2 {
            let taking = tokio::time::timeout(Duration::from_secs(30), silent.accept());
            taken.push(taking.await.expect("it tries").unwrap());
        }
        let reason = worker.unready().await;
        assert!(
            reason.starts_with("broker: no answer within 10 s"),
            "{reason}"
        );
        // A thread and a descriptor for each try would be too many in a night.
        let (mut first, mut said) = (taken.swap_remove(0).0, Vec::new());
        let ended = tokio::time::timeout(Duration::from_secs(30), first.read_to_end(&mut said));
        ended.await.expect("the first try has ended").unwrap();
        worker.signal("TERM");
        let status = worker.exit_within(STOP_WITHIN).await;
        assert!(status.success(), "{}", worker.log());
        rig.finish().await;
    }
}

/// Each crash counts against every delivery that the worker held: after a few, that is the one which it
/// dies of and no other.
#[tokio::test]
async fn a_message_that_kills_the_worker_ends_up_alone() {
    const CRASHES: usize = 16;
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        rig.publish(300).await;
        let mut held = Vec::new();
        for _ in 0..CRASHES {
            let line = rig.line().await;
            let trap = line.broker.trap(DEADLY, 0);
            let mut worker = Worker::start(line.command()).await;
            let deadly = trap.sprung_by(|| worker.log()).await;
            worker.signal("KILL");
            worker.exit_within(STOP_WITHIN).await;
            drop(deadly);
            held.push(line.journal.count(DELIVER) - line.journal.count(ACK));
        }
        assert!(held[12..].iter().all(|held| *held == 1), "{held:?}");
        // It ends with a look at the dead-letter queue.
        rig.finish().await;
    }
}
