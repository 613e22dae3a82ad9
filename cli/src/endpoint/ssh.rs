//! An engine on another machine, by `ssh HOST docker system dial-stdio`, as the docker command reaches it: the user's own ssh, with
//! the user's configuration and agent.

use std::process::Stdio;
use std::sync::Arc;

use bollard::errors::Error;
use bollard::{BollardRequest, Docker};
use http::header::HOST;
use http::{HeaderValue, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::process::Command;

/// A client whose every request has an ssh of its own.
///
/// # Errors
/// bollard refuses the address.
pub(super) fn client(
    authority: &str,
    timeout: u64,
    version: &bollard::ClientVersion,
) -> Result<Docker, Error> {
    let destination = Arc::new(format!("ssh://{authority}"));
    let send = move |request: BollardRequest| {
        let destination = Arc::clone(&destination);
        async move { exchange(&destination, request).await }
    };
    Docker::connect_with_custom_transport(send, Some("http://docker"), timeout, version)
}

async fn exchange(destination: &str, mut request: BollardRequest) -> Result<Response<Incoming>, Error> {
    // What ssh says of a key or a name that is no good goes to the user's terminal. It ends by itself when its input does.
    let mut child = Command::new("ssh")
        .args(["-T", "--", destination, "docker", "system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tokio::io::join(output, input))).await?;
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
        let _ = child.wait().await;
    });
    // A client that is connected asks for a path, and names the host in a header.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse();
    *request.uri_mut() = path.map_err(http::Error::from)?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    Ok(sender.send_request(request).await?)
}
