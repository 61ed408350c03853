//! Jobs against servers of this test, without a process of their own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::process::carry_out;
use super::*;

/// A server for one connection.
fn serve<R: Send + 'static>(
    talk: impl FnOnce(TcpStream) -> R + Send + 'static,
) -> (u16, JoinHandle<R>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || talk(listener.accept().unwrap().0));
    (port, serving)
}

fn post(port: u16, timeout_ms: u64) -> Job {
    Job::Post(Post {
        url: format!("http://127.0.0.1:{port}/hook?a=b"),
        headers: vec![("X-Limiter-Id".to_owned(), "7".to_owned())],
        body: b"{}".to_vec(),
        timeout_ms,
        certificates: None,
    })
}

fn read_request(stream: &TcpStream) -> Vec<String> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_owned();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        let is_end = line.is_empty();
        lines.push(line);
        if is_end {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    lines.push(String::from_utf8(body).unwrap());
    lines
}

#[test]
fn a_request_arrives_and_its_answer_comes_back_up_to_a_bound() {
    let (port, serving) = serve(|mut stream| {
        let request = read_request(&stream);
        let body = "x".repeat(job::MOST_BODY + 1_000);
        let length = body.len();
        let answer = format!("HTTP/1.1 418 no\r\nContent-Length: {length}\r\n\r\n{body}");
        // It may not want all of it.
        let _sent = stream.write_all(answer.as_bytes());
        request
    });
    let answer = carry_out(&post(port, 30_000));
    let request = serving.join().unwrap();
    assert_eq!(request[0], "POST /hook?a=b HTTP/1.1");
    assert!(
        request
            .iter()
            .any(|it| it.eq_ignore_ascii_case("x-limiter-id: 7")),
        "{request:?}"
    );
    assert_eq!(request.last().unwrap(), "{}");
    match answer {
        Answer::Replied { status: 418, body } => assert_eq!(body.len(), job::MOST_BODY),
        other => panic!("{other:?}"),
    }
}

#[test]
fn redirections_are_answers() {
    let (port, serving) = serve(|mut stream| {
        read_request(&stream);
        let answer =
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).unwrap();
    });
    let answer = carry_out(&post(port, 30_000));
    serving.join().unwrap();
    assert!(
        matches!(answer, Answer::Replied { status: 302, .. }),
        "{answer:?}"
    );
}

#[test]
fn servers_that_hang_or_are_not_there_are_tried_later() {
    // It takes the request, and says nothing until the other end has gone.
    let (port, serving) = serve(|mut stream| {
        let mut rest = Vec::new();
        let _gone = stream.read_to_end(&mut rest);
        rest.len()
    });
    let answer = carry_out(&post(port, 300));
    assert_eq!(answer, Answer::Later("no answer within 0.3 s".to_owned()));
    assert!(serving.join().unwrap() > 0);
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let answer = carry_out(&post(gone.port(), 30_000));
    assert!(
        matches!(&answer, Answer::Later(why) if why.contains("refused")),
        "{answer:?}"
    );
}

fn mail(port: u16) -> Job {
    Job::Mail(Box::new(Mail {
        host: "127.0.0.1".to_owned(),
        port,
        tls: Tls::None,
        login: None,
        own_name: "web1.example".to_owned(),
        from: "limiter@example.com".to_owned(),
        to: "ann@example.com".to_owned(),
        subject: "Zürich\r\nBcc: all@example.com".to_owned(),
        text: "Grüße\n.\nQUIT\n".to_owned(),
        id: "7@web1".to_owned(),
        date_s: 1_700_000_000,
        timeout_ms: 30_000,
        certificates: None,
    }))
}

/// Answers each line of a mail client in turn; what came.
fn smtp(stream: TcpStream, to_rcpt: &'static str) -> Vec<String> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut lines = Vec::new();
    let mut is_data = false;
    stream.write_all(b"220 here\r\n").unwrap();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return lines;
        }
        let line = line.trim_end_matches("\r\n").to_owned();
        let answer = match line.split([' ', ':']).next() {
            _ if is_data && line == "." => Some("250 taken"),
            _ if is_data => None,
            Some("RCPT") => Some(to_rcpt),
            Some("DATA") => Some("354 go on"),
            _ => Some("250 ok"),
        };
        is_data = (is_data || line == "DATA") && line != ".";
        lines.push(line);
        if let Some(answer) = answer {
            stream
                .write_all(format!("{answer}\r\n").as_bytes())
                .unwrap();
        }
    }
}

#[test]
fn a_mail_has_the_headers_that_were_meant() {
    let (port, serving) = serve(|stream| smtp(stream, "250 ok"));
    let answer = carry_out(&mail(port));
    assert!(
        matches!(&answer, Answer::Accepted(words) if words.contains("taken")),
        "{answer:?}"
    );
    let lines = serving.join().unwrap();
    assert_eq!(lines[0], "EHLO web1.example");
    assert!(
        lines.contains(&"Message-ID: <7@web1>".to_owned()),
        "{lines:#?}"
    );
    assert!(
        lines.contains(&"Auto-Submitted: auto-generated".to_owned()),
        "{lines:#?}"
    );
    assert!(
        lines.contains(&"Date: Tue, 14 Nov 2023 22:13:20 +0000".to_owned()),
        "{lines:#?}"
    );
    assert!(
        !lines.iter().any(|line| line.starts_with("Bcc")),
        "{lines:#?}"
    );
    let receivers = lines.iter().filter(|line| line.starts_with("RCPT"));
    assert_eq!(receivers.collect::<Vec<_>>(), ["RCPT TO:<ann@example.com>"]);
}

#[test]
fn servers_refuse_for_good_or_for_now() {
    for (reply, is_for_good) in [
        ("550 no such user", true),
        ("451 greylisted, come again", false),
        ("530 authentication required", false),
    ] {
        let (port, serving) = serve(move |stream| smtp(stream, reply));
        let answer = carry_out(&mail(port));
        serving.join().unwrap();
        let words = &reply[4..];
        match answer {
            Answer::Refused(why) if is_for_good => assert!(why.contains(words), "{why}"),
            Answer::Later(why) if !is_for_good => assert!(why.contains(words), "{why}"),
            other => panic!("{reply}: {other:?}"),
        }
    }
}

#[test]
fn one_odd_certificate_does_not_keep_the_others_from_being_believed() {
    use rustls::pki_types::pem::PemObject as _;
    let good = trust::roots(None).unwrap();
    let wrap = |der: &[u8]| {
        let text = BASE64_STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let odd = wrap(b"not a certificate at all");
    let both = format!("{odd}{}", wrap(&good[0]));
    let parsed = rustls::pki_types::CertificateDer::pem_slice_iter(both.as_bytes());
    assert_eq!(parsed.flatten().count(), 2);
    let roots = trust::roots(Some(both.as_bytes())).unwrap();
    assert_eq!(roots, good[..1]);
    let none = trust::roots(Some(odd.as_bytes()));
    assert_eq!(none.unwrap_err(), "notify.ca_file has no certificate");
}
