//! Paths as they are compared: one spelling for each.

/// The normal form of a request's path, after RFC 3986, section 6.2.2: without
/// query and fragment, percent-encoded unreserved characters decoded, the
/// digits of other escapes in capitals, doubled slashes as one, dot segments
/// resolved; case kept. What may not stand in a path (spaces, control
/// characters, all beyond ASCII, a `%` that starts no escape) is escaped, so
/// that the result is printable ASCII. It starts with `/`, but for the path
/// `*` of OPTIONS. Of a whole URL, its path.
///
/// The normal form of a normal form is itself.
#[must_use]
pub fn normalise(path: &str) -> String {
    if path == "*" {
        return path.to_owned();
    }
    let path = without_origin(path);
    let end = path.find(['?', '#']).unwrap_or(path.len());
    resolve(&escaped(&path[..end]))
}

/// The normal form where it is the path itself, but for query and fragment, as it mostly is.
#[must_use]
pub fn plain(path: &str) -> Option<&str> {
    let end = path
        .bytes()
        .position(|byte| matches!(byte, b'?' | b'#'))
        .unwrap_or(path.len());
    let mut before = 0;
    let mut is_plain = |byte: u8| {
        let begins_segment = std::mem::replace(&mut before, byte) == b'/';
        byte.is_ascii_graphic() && byte != b'%' && !(begins_segment && matches!(byte, b'/' | b'.'))
    };
    let bare = &path[..end];
    (bare.starts_with('/') && bare.bytes().all(&mut is_plain)).then_some(bare)
}

/// Proxies may send `http://host/path` in place of the path.
fn without_origin(path: &str) -> &str {
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    match path.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => {
            let start = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            &rest[start..]
        }
        _ => path,
    }
}

/// Every byte in the one way in which it is written.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.as_bytes();
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        match (*byte, rest) {
            (b'%', [high, low, after @ ..]) if let Some(value) = hex(*high, *low) => {
                bytes = after;
                if is_unreserved(value) {
                    out.push(char::from(value));
                } else {
                    escape(&mut out, value);
                }
            }
            (b'%', _) => escape(&mut out, b'%'),
            (byte, _) if byte.is_ascii_graphic() => out.push(char::from(byte)),
            (byte, _) => escape(&mut out, byte),
        }
    }
    out
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn escape(out: &mut String, byte: u8) {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    out.push('%');
    out.extend([byte >> 4, byte & 15].map(|value| digit(value).to_ascii_uppercase()));
}

/// Takes out empty and dot segments.
fn resolve(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_open = true;
    for segment in path.split('/') {
        is_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if is_open || out.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_for_each() {
        for (path, expected) in [
            ("/login", "/login"),
            ("/Login", "/Login"),
            ("/login?next=/a/../b", "/login"),
            ("/login#top", "/login"),
            ("//login", "/login"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b", "/a/b"),
            ("/a/../login", "/login"),
            ("/../../login", "/login"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/login/", "/login/"),
            ("/a/..", "/"),
            ("/%6cogin", "/login"),
            ("/%6Cogin", "/login"),
            ("/a/%2e%2e/login", "/login"),
            ("/a/%2E/login", "/a/login"),
            ("/a%2fb", "/a%2Fb"),
            ("/%7euser", "/~user"),
            ("/a%3fb", "/a%3Fb"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a b\n", "/a%20b%0A"),
            ("/100%", "/100%25"),
            ("/%%34%31", "/%2541"),
            ("/%zz", "/%25zz"),
            ("/...", "/..."),
            ("", "/"),
            ("?a", "/"),
            ("login", "/login"),
            ("*", "*"),
            ("http://example.com/login?a", "/login"),
            ("https://example.com", "/"),
            ("https://example.com?a=/login", "/"),
            ("/a://b/../c", "/a:/c"),
        ] {
            assert_eq!(normalise(path), expected, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn normal_forms_stay(path in "(\\PC|[%/.?#a4e2f: ]){0,40}") {
            let once = normalise(&path);
            prop_assert_eq!(normalise(&once), once.clone());
            prop_assert!(once == "*" || once.starts_with('/'));
            prop_assert!(once.bytes().all(|byte| byte.is_ascii_graphic()));
        }

        #[test]
        fn no_segment_is_empty_or_of_dots(path in "[%/.2eE]{0,40}") {
            let normal = normalise(&path);
            let inner = normal.trim_start_matches('/').trim_end_matches('/');
            let no_dots = |segment: &str| !matches!(segment, "." | "..");
            prop_assert!(inner.is_empty() || inner.split('/').all(|it| no_dots(it) && !it.is_empty()));
        }
    }
}
