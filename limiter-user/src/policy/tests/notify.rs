//! `[notify]`.

use std::fs;

use super::super::{Hidden, Language, SmtpTls, load};

const WEBHOOK: &str = "webhook = { url = 'https://hooks.example/a', secret_file = '@/secret' }";
const SMTP: &str = "server = 'mail.example', from = 'limiter <l@example.com>'";

/// A directory with the files that policies here name, as `@`.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("secret", "0123456789abcdef\n");
        write("short", "0123456789abcde\n");
        write("lines", "0123456789abcdef\nx\n");
        write("good.txt", "On {{host}}\n{{ account }} {{rule}}\n");
        write("word.txt", "On {{host}}\n{{passwort}}\n");
        write("account.txt", "For {{ account }}\n");
        write("empty.txt", "\nno subject\n");
        Self(directory)
    }

    fn load(&self, notify: &str) -> Result<super::super::Loaded, String> {
        let directory = self.0.path().to_str().unwrap();
        let path = self.0.path().join("limiter.toml");
        fs::write(
            &path,
            format!(
                "[edge]\ninterfaces = ['eth0']\n[notify]\n{}\n",
                notify.replace('@', directory)
            ),
        )
        .unwrap();
        load(&path).map_err(|error| error.to_string())
    }
}

#[test]
fn a_whole_section() {
    let files = Files::new();
    let text = format!(
        "{WEBHOOK}\nto = 'ops@example.com'\nper_hour = 5\nlanguage = 'de'\n\
         templates = {{ rung = '@/good.txt' }}\n\
         smtp = {{ {SMTP}, tls = 'tls', user = 'u', password_file = '@/secret' }}\n"
    );
    // The `@` of addresses is none of a file.
    let text = text
        .replace("ops@", "ops\\u0040")
        .replace("l@", "l\\u0040")
        .replace('\'', "\"");
    let loaded = files.load(&text).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let notify = loaded.policy.notify.unwrap();
    let smtp = notify.smtp.unwrap();
    assert_eq!(
        (smtp.host.as_str(), smtp.port, smtp.tls),
        ("mail.example", 465, SmtpTls::Tls)
    );
    assert_eq!(
        smtp.login,
        Some(("u".to_owned(), Hidden("0123456789abcdef".to_owned())))
    );
    assert_eq!(notify.webhook.unwrap().secret.0, "0123456789abcdef");
    assert_eq!(notify.to.as_deref(), Some("ops@example.com"));
    assert_eq!((notify.per_hour, notify.language), (5, Language::De));
    assert!(notify.templates.rung.unwrap().starts_with("On {{host}}"));
    assert!(!format!("{:?}", loaded.policy.state).contains("0123456789"));
}

#[test]
fn what_is_wrong_is_said() {
    let files = Files::new();
    for (text, expected) in [
        ("to = 'x'", "`x` is not a mail address"),
        ("per_hour = 0", "`per_hour` cannot be `0`"),
        (
            "webhook = { url = 'ftp://x/', secret_file = '@/secret' }",
            "is not an address of the web",
        ),
        (
            "webhook = { url = 'https://u:p\\u0040x/', secret_file = '@/secret' }",
            "is not an address of the web",
        ),
        (
            "webhook = { url = 'https://x/' }",
            "`webhook` has no `secret_file`",
        ),
        (
            "webhook = { url = 'https://x/', secret_file = '@/short' }",
            "the secret has 15 bytes",
        ),
        (
            "webhook = { url = 'https://x/', secret_file = '@/lines' }",
            "is not one line",
        ),
        (
            "webhook = { url = 'https://x/', secret_file = '@/none' }",
            "cannot be read",
        ),
        ("smtp = { server = 'x' }", "`smtp` has no `from`"),
        (
            "smtp = { server = 'x:0', from = 'a\\u0040b.example' }",
            "is not a server",
        ),
        (
            "smtp = { server = 'x', from = 'a\\u0040b.example', user = 'u' }",
            "`smtp` has no `password_file`",
        ),
        (
            "smtp = { server = 'x', from = 'a\\u0040b.example', password_file = '@/secret' }",
            "`smtp` has no `user`",
        ),
        ("templates = { rung = '@/word.txt' }", "asks for `passwort`"),
        (
            "templates = { rung = '@/account.txt' }",
            "has the account in its subject",
        ),
        ("templates = { rung = '@/empty.txt' }", "has no subject"),
        ("ca_file = '@/secret'", "has no certificate"),
    ] {
        let error = files.load(&text.replace('\'', "\"")).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let files = Files::new();
    for (text, expected) in [
        (
            "smtp = { server = 'x', from = 'a\\u0040b.example' }",
            "no `to`",
        ),
        (
            "to = 'a\\u0040b.example'\nsmtp = { server = 'x', tls = 'none', from = 'a\\u0040b.example' }",
            "mail goes to x in the clear",
        ),
        (
            "webhook = { url = 'http://hooks.example/', secret_file = '@/secret' }",
            "told to hooks.example in the clear",
        ),
    ] {
        let loaded = files.load(&text.replace('\'', "\"")).unwrap();
        let [warning] = &loaded.warnings[..] else {
            panic!("{:?}", loaded.warnings);
        };
        assert!(warning.message.contains(expected), "{warning}");
    }
    let text = "webhook = { url = 'http://[::1]:1/', secret_file = '@/secret' }";
    assert!(files.load(text).unwrap().warnings.is_empty());
}
