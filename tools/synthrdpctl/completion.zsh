#compdef synthrdpctl
# SPDX-License-Identifier: GPL-2.0-only
# zsh: what can follow synthrdpctl.

local -a commands
commands=(
	'status:show host, driver, switch, server and sessions'
	'sessions:list sessions, now and before'
	'doctor:find out what is wrong, and what helps'
	'enable:tell the host that this guest takes Enhanced Sessions'
	'disable:stop telling it, until enabled again'
	'end:end a session'
	'capture:write what passes into a file for Wireshark'
	'report:print what the project needs to know of a real host'
)

if ((CURRENT == 2)); then
	_describe command commands
	_arguments '--help[say how it is used]' '--version[print the version]'
	return
fi

case $words[2] in
status) _arguments '--json[as JSON]' '--watch=-[again and again]::seconds:' '--help' ;;
doctor) _arguments '--json[as JSON]' '--help' ;;
capture) _arguments '--limit=[keep the last megabytes only]:megabytes:' '--help' ':file:_files' ;;
end) compadd -- /sys/class/synthrdp/synthrdp<->(N:t) ;;
*) _arguments '--help' ;;
esac
