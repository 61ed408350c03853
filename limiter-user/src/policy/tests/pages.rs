//! Files that refusals are made of.

use std::fs;
use std::path::Path;

use super::super::{DiskFiles, Loaded, Page, PageKind, PolicyError, parse};

fn with_body(body: &Path) -> Result<Loaded, PolicyError> {
    let text = format!(
        "[[rule]]\nname = 'r'\nlimit = 1\nperiod = '1m'\naction = 'reject'\n\
         response = {{ body = '{}' }}\n",
        body.display()
    );
    parse("limiter.toml", &text, &DiskFiles::beside(Path::new("/")))
}

fn pages(body: &Path) -> Vec<Page> {
    let loaded = with_body(body).unwrap_or_else(|fault| panic!("{fault}"));
    loaded.policy.decide.unwrap().pages.of(body).to_vec()
}

fn fault(body: &Path) -> String {
    with_body(body).unwrap_err().to_string()
}

#[test]
fn a_page_is_read_and_of_a_name_without_end_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("refused.html"), "<p>{{ detail }}</p>").unwrap();
    fs::write(path("refused.txt"), "later").unwrap();
    let page = |kind, text: &str| Page {
        kind,
        text: text.to_owned(),
    };
    let html = page(PageKind::Html, "<p>{{ detail }}</p>");
    assert_eq!(pages(&path("refused.html")), std::slice::from_ref(&html));
    assert_eq!(
        pages(&path("refused")),
        [html, page(PageKind::Text, "later")]
    );
}

#[test]
fn what_is_no_page_is_an_error_of_its_rule() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("a.html"), "{{password}}").unwrap();
    fs::write(path("b.html"), [0xff]).unwrap();
    fs::write(path("c.html"), vec![b'x'; (64 << 10) + 1]).unwrap();
    fs::write(path("d.php"), "x").unwrap();
    fs::create_dir(path("e.html")).unwrap();
    fs::write(path("f.html"), "{{status").unwrap();
    let cases = [
        ("a.html", "asks for `password`"),
        ("b.html", "is not UTF-8 text"),
        ("c.html", "it has 65537 bytes"),
        ("d.php", "is no page"),
        ("e.html", "not a regular file"),
        ("g.html", "cannot be read"),
        ("g", "there is no page"),
    ];
    for (name, expected) in cases {
        let fault = fault(&path(name));
        assert!(fault.contains(expected), "{name}: {fault}");
        assert!(fault.contains(":6:21"), "{name}: {fault}");
    }
    // An end that is missing ends with the file.
    assert_eq!(pages(&path("f.html")).len(), 1);
}
