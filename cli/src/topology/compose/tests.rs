use super::*;
use crate::document::parse_text;
use crate::output::yaml;

#[test]
fn the_original_would_have_run_this() {
    let text = "\
name: small
lans:
  - { name: DMZ, subnet: 10.9.0.0/24, kind: dmz }
  - { name: inner, subnet: 10.9.1.0/24 }
deckies:
  - name: gate
    services: [ssh, http]
    service_config: { ssh: { accept_after: 1 } }
    forwards_l3: true
    edges: [{ lan: DMZ, address: 10.9.0.10 }, { lan: inner, address: 10.9.1.10 }]
  - { name: db, services: [redis], edges: [{ lan: inner, address: 10.9.1.20 }] }
";
    let file = parse_text(text, "t").expect("a topology").file;
    let document = compose("0190a000-0000-7000-8000-000000000001", &file);
    insta::assert_snapshot!(format!("{HEADING}{}", yaml(&document).expect("plain")));
}
