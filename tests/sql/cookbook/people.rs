//! Stories of accounts, and of those who look after them.

use super::story::{NOWHERE, SCRIPT, Story, device};

/// A morning of ann, who is an administrator.
pub(super) fn what_an_admin_did(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    story
        .at("2026-03-02 09:00")
        .signs_in("ann", "s-ann", office);
    story
        .bans("ann", "eve", None, office)
        .revokes("ann", "eve", "s-eve", office);
    story.founds("ann", "acme", office);
    story
        .at("2026-03-02 10:00")
        .impersonates("ann", "bob", "s-as-bob", office);
    story.renames("bob", "club", office).minutes(5);
    story.stops_impersonating("ann", "bob", "s-as-bob", office);
    let member_to_admin = ["member", "admin"];
    story.gets_role("bob", "acme", member_to_admin, office);

    // What others do, also to her, also from elsewhere, and what she did before.
    story.gets_role("eve", "acme", member_to_admin, device("203.0.113.18", "RU"));
    story.at("2026-03-02 11:00").unbans("carl", "eve", office);
    story.impersonates("carl", "dora", "s-as-dora", office);
    story.stops_impersonating("carl", "dora", "s-as-dora", office);
    story.revokes("carl", "ann", "s-ann", office);
    story.at("2026-03-01 11:00").unbans("ann", "eve", office);

    // Begun the day before and stopped on this one; stopped the day before, and begun the day after.
    story
        .at("2026-03-01 23:50")
        .impersonates("ann", "fay", "s-as-fay", office)
        .minutes(20);
    story.stops_impersonating("ann", "fay", "s-as-fay", office);
    story
        .at("2026-03-01 10:00")
        .impersonates("ann", "gus", "s-as-gus", office);
    story.stops_impersonating("ann", "gus", "s-as-gus", office);
    story
        .at("2026-03-03 10:00")
        .impersonates("ann", "hana", "s-as-hana", office);
    story.stops_impersonating("ann", "hana", "s-as-hana", office);
    // Roles given from where ann was not, only tried, was long before, will be; and on other days.
    let carls = device("203.0.113.18", "RU");
    let tried = device("203.0.113.19", "RU");
    let then = device("203.0.113.20", "DE");
    let soon = device("203.0.113.21", "DE");
    story
        .at("2026-03-02 08:00")
        .signs_in("carl", "s-carl", carls)
        .fails("ann", tried);
    story.at("2026-02-20 08:00").signs_in("ann", "s-then", then);
    story.at("2026-03-03 08:00").signs_in("ann", "s-soon", soon);
    story.at("2026-03-02 12:00");
    for from in [carls, tried, then, soon, NOWHERE] {
        story.gets_role("ida", "acme", member_to_admin, from);
    }
    story.signs_in("ann", "s-nowhere", NOWHERE);
    for day in ["2026-03-01 12:00", "2026-03-03 12:00"] {
        story
            .at(day)
            .gets_role("ida", "acme", member_to_admin, office);
    }
    // Stopped a day later.
    story
        .at("2026-03-02 23:50")
        .impersonates("ann", "fay", "s-again", office)
        .minutes(20);
    story.stops_impersonating("ann", "fay", "s-again", office);
}

/// Ann acts as bob while bob is there himself; the end of carl's impersonation is not reported.
pub(super) fn impersonations(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let home = device("198.51.100.8", "DE");
    story
        .at("2026-03-02 10:00")
        .impersonates("ann", "bob", "s-as-bob", office);
    story.minutes(2).renames("bob", "club", office);
    story.minutes(2).changes("name", "bob", home);
    story
        .minutes(2)
        .stops_impersonating("ann", "bob", "s-as-bob", office);
    story
        .at("2026-03-02 12:00")
        .impersonates("carl", "dora", "s-as-dora", office);
    story.minutes(30).changes("image", "dora", office);

    // Before, after, somebody else meanwhile, and an impersonation of another day.
    story.at("2026-03-02 09:59").changes("name", "bob", home);
    story.at("2026-03-02 10:30").changes("name", "bob", home);
    story.at("2026-03-02 10:03").changes("name", "emil", office);
    story.at("2026-03-02 13:01").changes("name", "dora", office);
    story
        .at("2026-03-03 10:00")
        .impersonates("ann", "emil", "s-as-emil", office);

    // Begun the day before.
    story
        .at("2026-03-01 23:58")
        .impersonates("ann", "fay", "s-as-fay", office);
    story.at("2026-03-02 00:05").changes("name", "fay", office);
}

/// Sessions that were forgotten, were long, and were ended in time.
pub(super) fn long_sessions(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    story
        .at("2026-03-01 08:00")
        .signs_in("ann", "s-forgotten", office);
    story
        .at("2026-03-02 08:00")
        .signs_in("bob", "s-long", office);
    story
        .at("2026-03-20 09:00")
        .signs_out("bob", "s-long", office);

    story
        .at("2026-03-03 08:00")
        .signs_in("carl", "s-short", office);
    story
        .at("2026-03-04 08:00")
        .signs_out("carl", "s-short", office);
    story
        .at("2026-03-05 08:00")
        .signs_in("dora", "s-revoked", office);
    story
        .at("2026-03-06 08:00")
        .revokes_all_sessions("dora", office);
    story
        .at("2026-03-25 08:00")
        .signs_in("emil", "s-young", office);
    story
        .at("2026-04-01 08:00")
        .signs_in("fay", "s-later", office);
}

/// Somebody signs in as ann and deletes her; bob is deleted by an administrator.
pub(super) fn before_a_deletion(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let thief = device("203.0.113.15", "RU").with(SCRIPT);
    story.at("2026-03-02 03:10").fails("ann", thief).minutes(5);
    story.signs_in("ann", "s-thief", thief).minutes(5);
    story.changes("newEmail", "ann", thief).minutes(10);
    story.deletes_the_account("ann", "s-thief", thief);
    story
        .at("2026-03-02 09:00")
        .signs_in("bob", "s-bob", office)
        .minutes(30);
    story.is_deleted_by("carl", "bob", office);

    // Earlier that day, another user, and a deletion of another day.
    story
        .at("2026-03-02 01:00")
        .signs_in("ann", "s-ann", office);
    story.at("2026-03-02 03:20").changes("name", "dora", office);
    story
        .at("2026-03-04 08:00")
        .signs_in("emil", "s-emil", office);
    story.deletes_the_account("emil", "s-emil", office);
}

/// Four accounts of one person, a family of two, and an office with programs of all kinds.
pub(super) fn accounts_of_one_device(story: &mut Story) {
    let farm = device("203.0.113.25", "PH").with(SCRIPT);
    story.at("2026-03-05 01:00");
    for user in ["trial-1", "trial-2", "trial-3", "trial-4"] {
        story.signs_up(user, "s-farm", farm).minutes(10);
    }
    story.signs_in("trial-1", "s-farm-2", farm);

    let home = device("198.51.100.8", "DE");
    story
        .signs_in("ann", "s1", home)
        .signs_in("bob", "s2", home);
    let office = device("192.0.2.10", "DE");
    for (user, agent) in [("carl", "Edge"), ("dora", "Safari"), ("emil", "Chrome")] {
        story
            .signs_in(user, "s3", office.with(agent))
            .fails(user, farm);
    }
    story.at("2026-04-01 01:00").signs_in("fay", "s4", home);

    // From anywhere.
    story.at("2026-03-06 01:00");
    for user in ["gus", "hana", "ida"] {
        story.signs_in(user, "s5", NOWHERE);
    }
}

/// Two people and a wave of programs sign up.
pub(super) fn sign_ups(story: &mut Story) {
    let home = device("198.51.100.8", "DE");
    let wave = device("203.0.113.35", "IN").with(SCRIPT);
    story
        .at("2026-03-01 10:00")
        .signs_up("ann", "s1", home)
        .minutes(5)
        .verifies("ann", home);
    story.at("2026-03-01 11:00").signs_up("bob", "s2", home);
    story
        .at("2026-03-02 20:00")
        .verifies("bob", home)
        .signs_in("bob", "s3", home);
    story.at("2026-03-03 03:00");
    for user in ["bot-1", "bot-2", "bot-3", "bot-4", "bot-5"] {
        story.signs_up(user, "s-wave", wave);
    }
    story.minutes(10).verifies("bot-1", wave);
    story.at("2026-03-03 09:00");
    for user in ["bot-1", "bot-2", "bot-3"] {
        story.bans("ann", user, None, home);
    }
    story
        .at("2026-03-04 09:00")
        .deletes_the_account("bot-4", "s-wave", wave);
    // Another time, and an account from before that is verified now.
    story.at("2026-02-28 10:00").signs_up("carl", "s4", home);
    story.at("2026-03-02 10:00").verifies("carl", home);
    story.at("2026-03-05 10:00").signs_up("dora", "s5", home);
}

/// Eve is banned and goes on, and comes back as eve-2.
pub(super) fn ban_evasion(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let lair = device("203.0.113.45", "RU").with(SCRIPT);
    story
        .at("2026-02-20 08:00")
        .signs_in("eve", "s1", lair)
        .signs_in("flatmate", "s2", lair);
    story
        .at("2026-03-02 09:00")
        .bans("ann", "eve", None, office);
    story.revokes("ann", "eve", "s1", office);
    story.at("2026-03-02 09:30").changes("name", "eve", lair);
    story.at("2026-03-03 10:00").signs_up("eve-2", "s3", lair);
    story.at("2026-03-04 10:00").signs_in("eve-2", "s4", lair);

    // Who was there before, another program there, a try, an unbanned user, a ban that ended by itself.
    story
        .at("2026-03-05 10:00")
        .signs_in("flatmate", "s5", lair);
    story
        .signs_in("neighbour", "s6", lair.with("Safari"))
        .fails("eve", lair);
    story
        .at("2026-03-06 10:00")
        .bans("ann", "gus", None, office);
    story.at("2026-03-07 10:00").unbans("ann", "gus", office);
    story.at("2026-03-08 10:00").signs_in("gus", "s7", office);
    let until = Some("2026-03-09T10:00:00.000Z");
    story
        .at("2026-03-08 10:00")
        .bans("ann", "hana", until, office);
    story
        .at("2026-03-10 10:00")
        .signs_in("hana", "s8", device("198.51.100.4", "DE"));

    // What eve did before; her device of long ago; one where others were before her, and one after.
    story.at("2026-03-02 08:00").changes("name", "eve", lair);
    let sold = device("203.0.113.46", "RU").with(SCRIPT);
    story.at("2025-12-01 08:00").signs_in("eve", "s9", sold);
    story.at("2026-03-05 12:00").signs_in("mia", "s10", sold);
    let cafe = device("203.0.113.47", "RU").with(SCRIPT);
    story.at("2026-03-04 12:00").signs_in("lea", "s11", cafe);
    story.at("2026-03-05 12:00").signs_in("eve", "s12", cafe);
    story.at("2026-03-06 12:00").signs_in("kim", "s13", cafe);
    // Somebody else where gus was, when he may be there again; and all who come from anywhere.
    let shared = device("198.51.100.44", "DE");
    story.at("2026-03-05 12:00").signs_in("gus", "s14", shared);
    story.at("2026-03-08 12:00").signs_in("ida", "s15", shared);
    story
        .at("2026-02-28 12:00")
        .signs_in("eve", "s16", NOWHERE.with(SCRIPT));
    story
        .at("2026-03-08 13:00")
        .signs_in("jan", "s17", NOWHERE.with(SCRIPT));
}
