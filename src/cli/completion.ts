/** Shell completion of `beacon`, made from its commands and the server's flags. */
import type { Argument, Command, Option } from "commander";
import { commands } from "../config/commands.ts";
import { settings, valueForm } from "../settings.ts";
import { createProgram, type Shell } from "./program.ts";

/** Parts of an option's `<a|b>` that are placeholders; the others are literal values. */
const PLACEHOLDERS = /^(address|count|duration|host:port|level|list|number|path|size|token|url)$/;

/** Something that can be typed. */
interface Word {
  readonly text: string;
  readonly help: string;
}

interface Choice extends Word {
  readonly takesValue: boolean;
  /** Its value is, or may be, a file. */
  readonly isFile: boolean;
  readonly values: readonly string[];
}

/** What may stand behind `beacon <name>`; "" is the server. */
interface Place {
  readonly name: string;
  readonly help: string;
  readonly options: readonly Choice[];
  readonly words: readonly Word[];
}

export function completion(shell: Shell): string {
  const places = placesOf(createProgram());
  switch (shell) {
    case "bash":
      return bash(places);
    case "zsh":
      return zsh(places);
    case "fish":
      return fish(places);
  }
}

function placesOf(program: Command): Place[] {
  const flags = [
    ...settings.map((setting) => choice(`--${setting.flag}`, setting.help, valueForm(setting))),
    choice("--config", "JSON file with the server's options", "<path>"),
    choice("--version", "Print the version", ""),
    choice("--help", "Print the server's flags", ""),
  ];
  const subcommands = program.commands.map((command) => ({
    name: command.name(),
    help: firstLine(command.description()),
    // check-config takes whatever the server takes.
    options: [
      ...command.options.map(optionChoice),
      ...(command.name() === "check-config" ? flags.filter(({ text }) => text !== "--help") : []),
      choice("--help", "Print this command's options", ""),
    ],
    words: command.registeredArguments.flatMap((argument) => argumentWords(argument)),
  }));
  const names = subcommands.map(({ name, help }) => ({ text: name, help }));
  const help = {
    name: "help",
    help: firstLine(commands.help),
    options: [],
    words: names,
  };
  return [
    { name: "", help: "", options: flags, words: [...names, { text: "help", help: help.help }] },
    ...subcommands,
    help,
  ];
}

function optionChoice(option: Option): Choice {
  return choice(
    option.long ?? option.short!,
    option.description,
    option.required ? option.flags.replace(/^[^<]*/, "") : "",
  );
}

/** @param value as help texts write it, "<path|off>"; "" for none */
function choice(text: string, help: string, value: string): Choice {
  const parts = value
    .replace(/[<>]/g, "")
    .split("|")
    .filter((part) => part !== "");
  return {
    text,
    help: firstLine(help),
    takesValue: value !== "",
    isFile: parts.includes("path"),
    values: parts.filter((part) => !PLACEHOLDERS.test(part)),
  };
}

function argumentWords({ argChoices }: Argument): Word[] {
  return (argChoices ?? []).map((text) => ({ text, help: "" }));
}

/** Without what would end a quotation in any of the shells. */
function firstLine(help: string): string {
  return help.split("\n")[0]!.replace(/['"`$\\[\]]/g, "");
}

const HEAD = (shell: string) =>
  `# Completion of beacon for ${shell}: made by "beacon completion ${shell}".\n`;

function bash(places: readonly Place[]): string {
  const cases = places.map(({ name, options, words }) => {
    const byReply = Map.groupBy(
      options.filter((option) => option.takesValue),
      ({ isFile, values }) => `${isFile ? "-f " : ""}-W '${values.join(" ")}'`,
    );
    const previous = [...byReply].map(([reply, choices]) => {
      const pattern = choices.map(({ text }) => `${text}|${text.slice(1)}`).join("|");
      return `        ${pattern}) COMPREPLY=($(compgen ${reply} -- "$cur")); return ;;\n`;
    });
    const all = [...words.map(({ text }) => text), ...options.map(({ text }) => text)].join(" ");
    return (
      `    ${name === "" ? "*" : name})\n` +
      (previous.length === 0 ? "" : `      case "$prev" in\n${previous.join("")}      esac\n`) +
      `      COMPREPLY=($(compgen -W '${all}' -- "$cur")) ;;\n`
    );
  });
  // The server's is the case of anything else, and comes last.
  return `${HEAD("bash")}_beacon() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" command=""
  if [ "$COMP_CWORD" -gt 1 ]; then command="\${COMP_WORDS[1]}"; fi
  case "$command" in
${[...cases.slice(1), cases[0]!].join("")}  esac
}
complete -o filenames -F _beacon beacon
`;
}

function zsh(places: readonly Place[]): string {
  const spec = ({ text, help, takesValue, isFile, values }: Choice) => {
    const action = isFile ? "_files" : values.length > 0 ? `(${values.join(" ")})` : " ";
    return `'${text}[${help}]${takesValue ? `:value:${action}` : ""}'`;
  };
  const options = ({ options, words }: Place) => {
    const rest =
      words.length === 0 ? [] : [`'1:word:(${words.map(({ text }) => text).join(" ")})'`];
    return [...rest, ...options.map(spec)].join(" \\\n        ");
  };
  const [server, ...others] = places;
  const described = server!.words.map(({ text, help }) => `'${text}:${help.replaceAll(":", " ")}'`);
  return `#compdef beacon
${HEAD("zsh")}_beacon() {
  local -a commands=(
    ${described.join("\n    ")}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  case $words[2] in
${others
  .map(
    (place) =>
      `    ${place.name})\n      shift words; (( CURRENT-- ))\n      _arguments \\\n        ${options(place)} ;;\n`,
  )
  .join("")}    *)
      _arguments \\\n        ${server!.options.map(spec).join(" \\\n        ")} ;;
  esac
}
if [ "$funcstack[1]" = "_beacon" ]; then _beacon "$@"; else compdef _beacon beacon; fi
`;
}

function fish(places: readonly Place[]): string {
  const names = places.flatMap(({ name }) => (name === "" ? [] : [name])).join(" ");
  const lines = places.flatMap(({ name, options, words }) => {
    const where =
      name === ""
        ? `not __fish_seen_subcommand_from ${names}`
        : `__fish_seen_subcommand_from ${name}`;
    const line = (rest: string, help: string) =>
      `complete -c beacon -n '${where}' ${rest}${help === "" ? "" : ` -d '${help}'`}\n`;
    return [
      ...words.map(({ text, help }) => line(`-a ${text}`, help)),
      ...options.map(({ text, help, takesValue, isFile, values }) => {
        const value = isFile ? " -r -F" : takesValue ? " -x" : "";
        const list = values.length > 0 ? ` -a '${values.join(" ")}'` : "";
        return line(`-l ${text.slice(2)}${value}${list}`, help);
      }),
    ];
  });
  return `${HEAD("fish")}complete -c beacon -f\n${lines.join("")}`;
}
