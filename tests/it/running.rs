//! Commands that are under way: fed, ended, and looked through for what they must not tell.

use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::canary;
use crate::process::PATIENCE;

/// A command that is under way; killed when dropped.
pub struct Running {
    command: Command,
    child: Child,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let child = command.spawn().expect("the command starts");
        Self { command, child }
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the command runs")
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end: exit code, stdout and stderr.
    pub async fn ended(self) -> (i32, String, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await;
        let output = ended.expect("the command ends").unwrap();
        canary::assert_output_silent(&self.command, &output);
        said(output)
    }
}

/// Runs a command with something on its stdin.
pub async fn fed(mut command: Command, stdin: &[u8]) -> (i32, String, String) {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(stdin).await.unwrap();
    drop(input);
    running.ended().await
}

/// Exit code, stdout and stderr.
pub fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    let code = output.status.code().expect("no signal ended it");
    (code, text(output.stdout), text(output.stderr))
}

/// Sends a signal to a process.
pub fn signal(process: u32, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}
