//! The endpoints of a running worker: `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tracing::error;

use crate::health::Health;

/// Takes the address.
///
/// # Errors
/// If it is taken already or not ours.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot serve on {address}: set PAXFLOW_HTTP_ADDR to a free address:port")
    })
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, health: Health, metrics: PrometheusHandle) {
    let exposition = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(async move || readyz(&health)))
        .route(
            "/metrics",
            get(move || async move { (exposition, metrics.render()) }),
        );
    if let Err(error) = axum::serve(listener, router).await {
        error!(reason = %error, "nothing is served any more");
    }
}

fn readyz(health: &Health) -> (StatusCode, String) {
    match health.readiness(Instant::now()) {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
