//! HTTPS, with a certificate by OpenSSL and a client by curl.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::program::{both, command, hookpool, lines, serve, signal, succeed};
use crate::common::server::Data;

fn certificate(folder: &Path) {
    let mut openssl = command("openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"));
    succeed(&mut openssl);
}

#[test]
#[ignore = "needs openssl and curl: tests/run"]
fn curl_speaks_https_with_the_configured_certificate() {
    let folder = Data::new();
    certificate(folder.path());
    let mut server = hookpool();
    // At the address that the certificate names.
    server
        .env("RUST_LOG", "warn")
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"));
    server.arg("--tls-cert").arg(folder.path().join("cert.pem"));
    server.arg("--tls-key").arg(folder.path().join("key.pem"));
    let mut child = server
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = lines(child.stdout.take().unwrap());
    let first = stdout.recv_timeout(Duration::from_secs(60)).unwrap();
    let url = first.strip_prefix("listening on ").unwrap();
    assert!(url.starts_with("https://127.0.0.1:"), "{first}");
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--cacert"])
        .arg(folder.path().join("cert.pem"));
    assert_eq!(
        succeed(curl.arg(format!("{url}/healthz"))),
        r#"{"status":"ok"}"#
    );
    signal("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_certificate_that_is_none_is_refused_before_the_folder_is_made() {
    let folder = Data::new();
    std::fs::write(folder.path().join("cert.pem"), "not a certificate").unwrap();
    let data = folder.path().join("data");
    let mut server = serve(&data);
    server.arg("--tls-cert").arg(folder.path().join("cert.pem"));
    server
        .arg("--tls-key")
        .arg(folder.path().join("nothing.pem"));
    let output = server.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(both(&output).contains(".pem"), "{}", both(&output));
    assert!(!data.exists(), "nothing was made");
}
