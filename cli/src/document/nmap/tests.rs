use std::time::{Duration, Instant};

use super::*;
use crate::document::{Loaded, judge, parse_text};
use crate::output::yaml;

/// As nmap 7.93 wrote it of five addresses in a network namespace.
const REAL: &str = include_str!("../vectors/scan.xml");
const OFFICE: &str = include_str!("../vectors/office.xml");

fn loaded(text: &str) -> Loaded {
    parse_text(text, "scans/office.xml").expect("a scan")
}

fn refusal(text: &str) -> String {
    parse_text(text, "t.xml")
        .expect_err("no scan")
        .lines()
        .join("\n")
}

/// What an operator gets: the document, and beneath it what there is to say.
fn shown(text: &str) -> String {
    let loaded = loaded(text);
    let document = yaml(&loaded.file).expect("it can be written");
    let findings = judge(loaded).findings;
    let lines = findings
        .iter()
        .map(|finding| format!("{} {finding}\n", finding.severity.as_str()));
    format!("{document}---\n{}", lines.collect::<String>())
}

fn scan(hosts: &str) -> String {
    format!("<?xml version=\"1.0\"?>\n<!DOCTYPE nmaprun>\n<nmaprun>\n{hosts}\n</nmaprun>\n")
}

fn host(address: &str, rest: &str) -> String {
    format!(
        "<host><status state=\"up\"/><address addr=\"{address}\" addrtype=\"ipv4\"/>\
         <ports><port protocol=\"tcp\" portid=\"22\"><state state=\"open\"/></port></ports>{rest}</host>"
    )
}

#[test]
fn what_nmap_wrote_becomes_this_topology() {
    insta::assert_snapshot!(shown(REAL));
}

#[test]
fn hosts_ports_and_systems_become_deckies_services_and_personas() {
    insta::assert_snapshot!(shown(OFFICE));
}

#[test]
fn an_import_can_be_deployed_as_it_is() {
    for text in [REAL, OFFICE] {
        let judged = judge(loaded(text));
        let errors: Vec<_> = judged
            .findings
            .iter()
            .filter(|each| each.is_error())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert!(judged.hash.is_some());
    }
}

#[test]
fn a_topology_is_called_like_its_file() {
    for (file, name) in [
        ("scans/office.xml", "office"),
        ("my scan (2).xml", "my-scan--2"),
        ("..", "scan"),
        ("-", "scan"),
        ("standard input", "scan"),
        ("ä.xml", "scan"),
    ] {
        let loaded = parse_text(&scan(&host("10.1.1.2", "")), file).expect("a scan");
        assert_eq!(loaded.file.name, name, "{file}");
    }
}

#[test]
fn an_operating_system_becomes_its_persona() {
    let table = [
        (
            ("Linux 5.4", "Linux", "general purpose", "Linux"),
            Persona::Linux,
        ),
        (
            ("OpenBSD 6.0", "OpenBSD", "general purpose", "OpenBSD"),
            Persona::Bsd,
        ),
        (
            ("Apple macOS 11", "macOS", "general purpose", "Apple"),
            Persona::Bsd,
        ),
        (
            (
                "Microsoft Windows 7",
                "Windows",
                "general purpose",
                "Microsoft",
            ),
            Persona::Windows,
        ),
        (
            (
                "Microsoft Windows Server 2012 R2",
                "Windows",
                "general purpose",
                "Microsoft",
            ),
            Persona::WindowsServer,
        ),
        (("Cisco Catalyst", "IOS", "switch", "Cisco"), Persona::Cisco),
        (
            ("AXIS camera (Linux 2.6.17)", "Linux", "webcam", "Linux"),
            Persona::Embedded,
        ),
        (("Apple iPhone", "iOS", "phone", "Apple"), Persona::Embedded),
        (
            ("HP printer", "embedded", "printer", "HP"),
            Persona::Embedded,
        ),
    ];
    for ((title, family, kind, vendor), persona) in table {
        let system = format!(
            "<os><osmatch name=\"{title}\" accuracy=\"90\"><osclass type=\"{kind}\" \
             vendor=\"{vendor}\" osfamily=\"{family}\"/></osmatch></os>"
        );
        let loaded = loaded(&scan(&host("10.1.1.2", &system)));
        assert_eq!(
            loaded.file.deckies[0].persona.as_deref(),
            Some(persona.as_str()),
            "{title}"
        );
    }
    let nothing = loaded(&scan(&host("10.1.1.2", "")));
    assert_eq!(nothing.file.deckies[0].persona, None);
}

#[test]
fn entities_and_document_types_of_its_own_are_refused() {
    let bomb = "<?xml version=\"1.0\"?>\n<!DOCTYPE nmaprun [\n<!ENTITY a \"aaaaaaaaaa\">\n\
                <!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">\n]>\n<nmaprun>&b;</nmaprun>";
    let outside = "<!DOCTYPE nmaprun SYSTEM \"file:///etc/passwd\"><nmaprun/>";
    for text in [bomb, outside] {
        let said = refusal(text);
        assert!(
            said.contains("document types with declarations are refused"),
            "{said}"
        );
    }
    let said = refusal(&scan("<host><status state=\"up\"/>&boom;</host>"));
    assert!(said.contains("t.xml:4:"), "{said}");
    assert!(
        said.contains("hosts[0]: entities of its own are refused"),
        "{said}"
    );
    let said = refusal(&scan(
        "<host><address addr=\"&boom;\" addrtype=\"ipv4\"/></host>",
    ));
    assert!(
        said.contains("t.xml:4:") && said.contains("hosts[0]"),
        "{said}"
    );
}

#[test]
fn what_is_no_whole_scan_says_where_it_fails() {
    let cut = &OFFICE[..OFFICE.len() / 2];
    let said = refusal(cut);
    assert!(
        said.contains("was nmap interrupted?") || said.contains("t.xml:"),
        "{said}"
    );
    for (text, wanted) in [
        ("<html><body/></html>", "not a scan of nmap"),
        ("<nmaprun>", "the scan ends in the middle"),
        ("<nmaprun><host></nmaprun>", "t.xml:1:"),
        ("<?xml version=\"1.0\"?>", "the scan ends in the middle"),
        ("<", "t.xml:1:"),
        ("<nmaprun a></nmaprun><x/>", "not a scan of nmap"),
    ] {
        let said = refusal(text);
        assert!(said.contains(wanted), "{text}: {said}");
    }
    for end in 0..OFFICE.len() {
        let Some(text) = OFFICE.get(..end) else {
            continue;
        };
        // All but the very end is refused; that it never panics is the point.
        drop(parse_text(text, "t.xml"));
    }
}

#[test]
fn depth_attributes_and_hosts_are_bounded() {
    let started = Instant::now();
    let deep = format!("<nmaprun>{}", "<a>".repeat(1_000_000));
    assert!(refusal(&deep).contains("nested deeper than 32"));
    let wide: String = (0..200_000)
        .map(|number| format!(" a{number}=\"\""))
        .collect();
    let said = refusal(&scan(&format!("<host><status{wide}/></host>")));
    assert!(said.contains("more than 64 attributes"), "{said}");
    assert!(refusal(&scan(&"<host/>".repeat(70_000))).contains("more than 65536 hosts"));
    let long = scan(&host("10.1.1.2", "").replace("10.1.1.2", &"1".repeat(1_000_000)));
    assert_eq!(loaded(&long).file.deckies, []);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn ten_thousand_hosts_are_read_and_then_too_many() {
    let started = Instant::now();
    let hosts: String = (0..10_000_u32)
        .map(|number| host(&format!("10.{}.{}.9", 1 + number / 250, number % 250), ""))
        .collect();
    let loaded = loaded(&scan(&hosts));
    assert_eq!(loaded.file.deckies.len(), 10_000);
    assert!(loaded.findings.len() <= MAX_FINDINGS + 1);
    let judged = judge(loaded);
    let large: Vec<_> = judged
        .findings
        .iter()
        .filter(|finding| finding.code == FindingCode::TooLarge)
        .map(|finding| finding.path.as_str())
        .collect();
    assert_eq!(large, ["deckies", "lans"]);
    assert!(judged.hash.is_none());
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn names_that_machines_give_are_never_more_than_names() {
    let named = |name: &str| {
        let name = name
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('"', "&quot;");
        format!("<hostnames><hostname name=\"{name}\"/></hostnames>")
    };
    let hosts: Vec<String> = [
        "\u{1b}[31mred",
        "../../etc",
        "web",
        "WEB",
        "Wеb",
        "",
        "-x",
        "a b",
    ]
    .iter()
    .enumerate()
    .map(|(index, name)| host(&format!("10.1.1.{}", index + 2), &named(name)))
    .collect();
    let loaded = loaded(&scan(&hosts.concat()));
    let names: Vec<_> = loaded
        .file
        .deckies
        .iter()
        .map(|each| each.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "host-10-1-1-2",
            "host-10-1-1-3",
            "web",
            "WEB-10-1-1-5",
            "host-10-1-1-6",
            "host-10-1-1-7",
            "host-10-1-1-8",
            "host-10-1-1-9"
        ]
    );
    assert!(judge(loaded).hash.is_some());
}
