/** The manual page beacon(1), made of what --help is made of. */
import type { Command } from "commander";
import { envName, settings, valueForm } from "../../src/settings.ts";

/**
 * Text that roff prints as it is: no escapes, no dash that becomes a hyphen, no line that begins as
 * a request.
 */
function plain(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("~", "\\(ti")
    .replaceAll("^", "\\(ha")
    .replace(/^([.'])/gm, "\\&$1");
}

const section = (title: string, ...lines: readonly string[]): string =>
  [`.SH ${title}`, ...lines].join("\n");

/** A term in bold, and what it means. */
const item = (term: string, ...lines: readonly string[]): string =>
  [".TP", `.B ${plain(term)}`, ...lines.map(plain)].join("\n");

function settingsSection(): string {
  const groups = Map.groupBy(settings, ({ group }) => group);
  const parts = [...groups].map(([title, all]) =>
    [
      `.SS ${plain(title.replace(/:$/, ""))}`,
      ...all.map((setting) => {
        const { flag, help, defaultNote, default: fallback } = setting;
        const note = fallback === undefined ? "" : `Default: ${defaultNote ?? fallback}. `;
        return item(
          `--${flag} ${valueForm(setting)}`,
          help,
          `${note}Environment: ${envName(flag)}.`,
        );
      }),
    ].join("\n"),
  );
  return section(
    "OPTIONS",
    plain('One dash or two, a space or "=": -addr :9001 and --addr=:9001 are the same.'),
    ...parts,
    ".SS General",
    item("--config <path>", "JSON file with any of the above.", "Environment: BEACON_CONFIG."),
    item("--version", "Print the version and exit."),
    item("-h, --help", "Print the options and exit."),
  );
}

/** A part for each command that stands beside the server. */
function commandsSection(program: Command): string {
  const parts = program.commands.map((command) => {
    const options = command.options.map(({ flags, description }) => item(flags, description));
    const headline = `${program.name()} ${command.name()} ${command.usage()}`;
    return [`.SS ${plain(headline)}`, plain(command.description()), ...options].join("\n");
  });
  return section("COMMANDS", ...parts);
}

/**
 * The page's text, in roff.
 * @param date YYYY-MM-DD
 * @param program has the commands beside the server
 */
export function manPage(version: string, date: string, program: Command): string {
  const sections = [
    `.TH BEACON 1 ${plain(date)} "pilot\\-beacon ${plain(version)}" "Pilot Protocol"`,
    ".nh", // names that are to be typed are not hyphenated
    section("NAME", "beacon \\- UDP rendezvous and relay server for Pilot Protocol"),
    section("SYNOPSIS", ".B beacon", "[options]", ".br", ".B beacon", "command [options]"),
    section(
      "DESCRIPTION",
      plain(
        "A beacon is a public UDP server that tells a node its own address, brings two nodes together through their NATs, and relays their packets when no direct path exists.",
      ),
      ".PP",
      plain(
        'Options outrank the environment, which outranks the configuration file, which outranks the defaults. The file is one JSON object; its keys are the options without dashes: {"max-nodes": 100000}.',
      ),
    ),
    settingsSection(),
    commandsSection(program),
    section(
      "SIGNALS",
      item("SIGTERM, SIGINT", "Relay on for --drain, then stop. A second one skips the wait."),
      item(
        "SIGHUP",
        "Read the configuration file again; what needs a restart is named in the log.",
      ),
      item(
        "SIGUSR2",
        "Upgrade in place: start the program again and hand the sockets and nodes to it.",
      ),
    ),
    section(
      "EXIT STATUS",
      item("0", "It was asked to stop."),
      item("1", "It could not start, or ended by itself."),
      item("2", "The configuration is bad, or a file that it names."),
    ),
    section(
      "FILES",
      item(
        "/etc/pilot-beacon/config.json",
        "What the service reads, where the package or the unit was installed.",
      ),
      item("/var/lib/pilot-beacon/nodes", "The nodes that the service knows, kept over restarts."),
    ),
    section(
      "EXAMPLES",
      ".EX",
      plain("beacon --addr 0.0.0.0:9001 --max-nodes 100000 --log-format json"),
      ".EE",
    ),
  ];
  return `${sections.join("\n")}\n`;
}
