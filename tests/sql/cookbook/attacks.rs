//! Stories of somebody who wants in.

use super::story::{NEWER_FIREFOX, NOWHERE, SCRIPT, Story, device};

/// One address hammers two accounts; others fail as people do.
pub(super) fn brute_force(story: &mut Story) {
    let attacker = device("203.0.113.7", "RU").with(SCRIPT);
    story.at("2026-03-02 02:58");
    // Across an hour's border: no hour has ten.
    for _ in 0..9 {
        story.fails("ann", attacker).minutes(1);
    }
    story.at("2026-03-02 03:08").fails("ann", attacker);
    story.at("2026-03-02 14:00").fails("bob", attacker);

    // Below the threshold: nine within minutes.
    let clumsy = device("198.51.100.20", "DE");
    story.at("2026-03-02 09:00");
    for _ in 0..9 {
        story.fails("carl", clumsy);
    }
    // Ten, but over the day.
    let slow = device("198.51.100.21", "DE");
    story.at("2026-03-02 04:00");
    for _ in 0..10 {
        story.fails("dora", slow).minutes(60);
    }
    // Ten sign-ins that succeed, and ten failures of the day before.
    let office = device("192.0.2.10", "DE");
    story.at("2026-03-02 10:00");
    for session in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10"] {
        story.signs_in("ann", session, office);
    }
    story.at("2026-03-01 10:00");
    for _ in 0..10 {
        story.fails("ann", office);
    }

    // From anywhere.
    story.at("2026-03-02 16:00");
    for _ in 0..10 {
        story.fails("ann", NOWHERE);
    }
}

/// One address tries two passwords on ten accounts and gets in once; an office has failures, too.
pub(super) fn password_spraying(story: &mut Story) {
    let sprayer = device("203.0.113.9", "VN").with(SCRIPT);
    let users = ["ann", "bob", "carl", "dora", "emil", "fay", "gus", "hana"];
    for hour in ["2026-03-02 01:00", "2026-03-02 05:00"] {
        story.at(hour);
        for user in users {
            story.fails(user, sprayer).minutes(3);
        }
        story.fails_as_nobody("root@example.com", sprayer);
        story.fails_as_nobody("sales@example.com", sprayer);
    }
    story
        .at("2026-03-02 06:00")
        .signs_in("hana", "s-hana", sprayer);

    // Everybody in the office fails once and then signs in.
    let office = device("192.0.2.10", "DE");
    story.at("2026-03-02 08:00");
    for user in users {
        story.fails(user, office).signs_in(user, "s-office", office);
        story.signs_in(user, "s-office-2", office);
    }
    // Seven accounts are too few, and ten tries on one are brute force.
    let few = device("203.0.113.10", "VN");
    story.at("2026-03-02 09:00");
    for user in &users[..7] {
        story.fails(user, few);
    }
    let brute = device("203.0.113.11", "VN");
    for user in users {
        story.fails(user, brute).fails("ann", brute);
    }

    // From anywhere.
    for user in users {
        story.fails(user, NOWHERE);
    }
}

/// A list of leaked passwords gets in as emil and fay; gus forgot his own.
pub(super) fn credential_stuffing(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    story
        .at("2026-02-20 09:00")
        .signs_in("gus", "s-gus-1", office);
    story.signs_in("emil", "s-emil-1", office);

    let list = device("203.0.113.30", "BR").with(SCRIPT);
    story.at("2026-03-02 02:00");
    // Before the fifth failure it is a guess, and not told.
    story.fails("ann", list).signs_in("zoe", "s-zoe", list);
    for user in ["bob", "carl", "dora"] {
        story.fails(user, list);
    }
    story.fails_as_nobody("nobody@example.com", list);
    story.signs_in("emil", "s-emil-2", list);
    story.fails("fay", list).signs_in("fay", "s-fay", list);
    // Her own failures do not make the others' five.
    let home = device("198.51.100.5", "DE");
    story.at("2026-03-02 07:00");
    for _ in 0..6 {
        story.fails("ida", home);
    }
    story.signs_in("ida", "s-ida", home);
    // A morning in the office: many fail, gus is at home there.
    story.at("2026-03-02 08:00");
    for user in ["ann", "bob", "carl", "dora", "hana"] {
        story.fails(user, office);
    }
    story.signs_in("gus", "s-gus-2", office);

    // From anywhere.
    story.at("2026-03-02 12:00");
    for user in ["ann", "bob", "carl", "dora", "hana"] {
        story.fails(user, NOWHERE);
    }
    story.signs_in("jan", "s-jan", NOWHERE);
    // The list had failed as emil before, and had been let in as fay long before: neither is used to it.
    story.at("2026-02-25 02:00").fails("emil", list);
    story
        .at("2025-12-01 02:00")
        .signs_in("fay", "s-fay-0", list);
}

/// From Berlin to Sydney in two hours.
pub(super) fn impossible_travel(story: &mut Story) {
    let berlin = device("192.0.2.10", "DE");
    let sydney = device("203.0.113.40", "AU").with(SCRIPT);
    story.at("2026-03-02 08:00").signs_in("ann", "s1", berlin);
    story.at("2026-03-02 10:15").signs_in("ann", "s2", sydney);
    // A VPN: the same program.
    let vpn = device("198.51.100.99", "NL");
    story.at("2026-03-02 09:00").signs_in("bob", "s3", berlin);
    story.at("2026-03-02 09:30").signs_in("bob", "s4", vpn);

    // A flight takes longer, a failure is no sign-in, and no country is none to travel to.
    story.at("2026-03-02 06:00").signs_in("carl", "s5", berlin);
    story.at("2026-03-02 10:30").signs_in("carl", "s6", sydney);
    story.at("2026-03-02 11:00").signs_in("dora", "s7", berlin);
    story.at("2026-03-02 11:30").fails("dora", sydney);
    story.at("2026-03-02 12:00").signs_in("emil", "s8", berlin);
    story
        .at("2026-03-02 12:30")
        .signs_in("emil", "s9", device("203.0.113.41", ""));
    // Two people in two countries.
    story.at("2026-03-02 13:00").signs_in("fay", "s10", berlin);
    story.at("2026-03-02 13:01").signs_in("gus", "s11", sydney);

    // From one country twice.
    story.at("2026-03-02 13:00").signs_in("emil", "s12", berlin);
}

/// Ann, who works from two countries, signs in from a third.
pub(super) fn first_sign_in_from_country(story: &mut Story) {
    let berlin = device("192.0.2.10", "DE");
    let vienna = device("198.51.100.7", "AT");
    let lagos = device("203.0.113.50", "NG");
    story.at("2026-02-01 08:00").signs_in("ann", "s1", berlin);
    story.at("2026-02-10 08:00").signs_in("ann", "s2", vienna);
    story.at("2026-03-02 08:00").signs_in("ann", "s3", lagos);
    story.at("2026-03-02 09:00").signs_in("ann", "s4", lagos);
    // Longer ago than what counts as known.
    story.at("2025-11-01 08:00").signs_in("bob", "s5", vienna);
    story.at("2026-02-01 08:00").signs_in("bob", "s6", berlin);
    story.at("2026-03-02 10:00").signs_in("bob", "s7", vienna);

    // Known, new altogether, only failed, and later.
    story.at("2026-03-02 11:00").signs_in("ann", "s8", vienna);
    story.at("2026-03-02 11:00").signs_up("carl", "s9", lagos);
    story.at("2026-02-01 08:00").signs_in("dora", "s10", berlin);
    story.at("2026-03-02 12:00").fails("dora", lagos);
    story.at("2026-03-03 08:00").signs_in("dora", "s11", lagos);

    // From a country that is not known.
    story
        .at("2026-03-02 13:00")
        .signs_in("ann", "s12", device("203.0.113.51", ""));
}

/// The owner signs in with a script; everything else is as always.
pub(super) fn new_device_of_an_admin(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let elsewhere = device("203.0.113.60", "RO").with(SCRIPT);
    story.at("2026-01-10 08:00").founds("ann", "acme", office);
    story.is_added("carl", "acme", "member", office);
    for user in ["ann", "bob", "carl"] {
        story
            .at("2026-02-01 08:00")
            .signs_in(user, "s-before", office);
    }
    // Bob has no role in an organization, but uses the admin API.
    story
        .at("2026-02-02 08:00")
        .bans("bob", "eve", None, office);
    story
        .at("2026-03-02 03:00")
        .signs_in("ann", "s-ann", elsewhere);
    story
        .at("2026-03-02 04:00")
        .signs_in("bob", "s-bob", elsewhere);

    // A member, an update of the browser, a device used again.
    story
        .at("2026-03-02 05:00")
        .signs_in("carl", "s-carl", elsewhere);
    story
        .at("2026-03-02 08:00")
        .signs_in("ann", "s-ann-2", office.with(NEWER_FIREFOX));
    story
        .at("2026-03-02 09:00")
        .signs_in("ann", "s-ann-3", elsewhere);

    // An admin no more, and what is not known to be a device.
    story
        .at("2025-06-01 08:00")
        .is_added("fay", "acme", "admin", office);
    story
        .at("2025-12-01 08:00")
        .is_removed("fay", "acme", "admin", office);
    story
        .at("2026-02-01 08:00")
        .signs_in("fay", "s-before", office);
    story
        .at("2026-03-02 10:00")
        .signs_in("fay", "s-fay", elsewhere);
    story
        .at("2026-03-02 11:00")
        .signs_in("ann", "s-ann-4", office.with(""));
    // Used long ago only.
    story
        .at("2025-10-01 08:00")
        .signs_in("bob", "s-long-ago", elsewhere);
    // New, but a day later.
    story
        .at("2026-03-03 08:00")
        .signs_in("ann", "s-ann-5", office.with("Safari"));
}

/// An account of which nothing was heard for half a year is used again from elsewhere.
pub(super) fn dormant_accounts_woken(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let elsewhere = device("203.0.113.70", "UA").with(SCRIPT);
    story.at("2025-09-01 08:00").signs_in("ann", "s1", office);
    story
        .at("2026-03-02 03:00")
        .signs_in("ann", "s2", elsewhere);
    story
        .at("2026-03-02 04:00")
        .signs_in("ann", "s3", elsewhere);
    story.at("2025-10-15 12:00").signs_in("bob", "s4", office);
    story.at("2026-03-02 09:00").signs_in("bob", "s5", office);

    // Away for less, only tried, new, and not back yet.
    story.at("2026-01-10 08:00").signs_in("carl", "s6", office);
    story.at("2026-03-02 10:00").signs_in("carl", "s7", office);
    story.at("2025-09-01 08:00").signs_in("dora", "s8", office);
    story.at("2026-03-02 10:00").fails("dora", elsewhere);
    story.at("2026-03-02 10:00").signs_up("emil", "s9", office);
    story.at("2025-09-01 08:00").signs_in("fay", "s10", office);
    story.at("2026-03-03 08:00").signs_in("fay", "s11", office);
}

/// One hour with many failures; nights are quiet, and failures few.
pub(super) fn failure_ratio(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    for day in [
        "2026-02-03",
        "2026-02-04",
        "2026-02-05",
        "2026-02-10",
        "2026-02-11",
        "2026-02-12",
        "2026-02-17",
        "2026-02-24",
        "2026-02-25",
        "2026-02-26",
    ] {
        story.at(&format!("{day} 09:00"));
        for session in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"] {
            story.signs_in("ann", session, office);
        }
        story.fails("ann", office);
    }
    let attacker = device("203.0.113.80", "RU");
    story.at("2026-03-02 03:00");
    for user in ["ann", "bob", "carl", "dora", "emil", "fay"] {
        story.fails(user, attacker).fails(user, attacker);
    }
    story
        .signs_in("ann", "s10", office)
        .signs_in("bob", "s11", office);
    story.signs_in("carl", "s12", office);

    // A bad share of few, and many failures among more that succeed.
    story
        .at("2026-03-02 05:00")
        .fails("ann", office)
        .fails("bob", office);
    story.at("2026-03-02 09:00");
    for _ in 0..10 {
        story.fails("ann", office);
        for session in ["a", "b", "c"] {
            story.signs_in("ann", session, office);
        }
    }

    // A bad hour of the month before is part of what is usual.
    story.at("2026-02-20 03:00");
    for user in ["ann", "bob", "carl", "dora", "emil", "fay"] {
        story.fails(user, attacker).fails(user, attacker);
    }
    // What is older is not.
    story.at("2026-01-20 03:00");
    for user in ["ann", "bob", "carl", "dora", "emil", "fay"] {
        story.fails(user, attacker).fails(user, attacker);
    }
}

/// The mailbox of ann was read by somebody else.
pub(super) fn takeover_by_reset(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let thief = device("203.0.113.90", "RU");
    for user in ["ann", "bob", "carl", "dora"] {
        story
            .at("2026-02-01 08:00")
            .signs_in(user, "s-before", office);
    }
    story
        .at("2026-03-02 02:00")
        .asks_for_a_reset("ann", thief)
        .minutes(2);
    story.resets_the_password("ann", thief).minutes(1);
    story.signs_in("ann", "s-thief", thief).minutes(4);
    story.changes("newEmail", "ann", thief);

    // Bob forgot his password, carl changes his name after a reset, and dora her address without one.
    story
        .at("2026-03-02 09:00")
        .asks_for_a_reset("bob", office)
        .minutes(2);
    story
        .resets_the_password("bob", office)
        .signs_in("bob", "s-bob", office);
    story
        .at("2026-03-02 10:00")
        .resets_the_password("carl", office)
        .changes("name", "carl", office);
    story
        .at("2026-03-02 11:00")
        .changes("newEmail", "dora", office)
        .signs_in("dora", "s-dora", thief);
    // More than a day later, from a new address.
    story
        .at("2026-03-03 10:00")
        .signs_in("bob", "s-bob-2", device("198.51.100.3", "DE"));

    // The thief had tried before, and once come in long ago: neither makes it an address of ann.
    story.at("2026-03-02 01:30").fails("ann", thief);
    story
        .at("2025-11-01 08:00")
        .signs_in("ann", "s-long-ago", thief);
    // Changed before the reset.
    story
        .at("2026-03-02 09:30")
        .changes("newEmail", "carl", office);
}

/// Two checks block every day; on the tenth one of them blocks far more.
pub(super) fn blocked_requests(story: &mut Story) {
    let bot = device("203.0.113.100", "CN").with(SCRIPT);
    for day in ["03", "04", "05", "06", "07", "08", "09"] {
        story.at(&format!("2026-03-{day} 10:00"));
        story.is_checked("blocked", "email_validity", "/sign-up/email", bot);
        story.is_checked("passed", "email_validity", "/sign-up/email", bot);
    }
    story
        .at("2026-03-10 10:00")
        .is_checked("blocked", "email_validity", "/sign-up/email", bot);
    for address in [
        "203.0.113.101",
        "203.0.113.102",
        "203.0.113.103",
        "203.0.113.101",
    ] {
        let bot = device(address, "CN").with(SCRIPT);
        story.is_checked("blocked", "bot_detection", "/sign-in/email", bot);
        story.is_checked("challenged", "bot_detection", "/sign-in/email", bot);
    }
    // Another day, and what is refused without a check.
    story
        .at("2026-03-11 10:00")
        .is_checked("blocked", "email_validity", "/sign-up/email", bot);
    story.at("2026-03-10 11:00").fails("ann", bot);

    // Another check, which stops nobody.
    story.at("2026-03-10 12:00");
    story.is_checked("passed", "ip_reputation", "/sign-in/email", bot);
}
