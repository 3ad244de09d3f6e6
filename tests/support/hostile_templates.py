"""Chat templates that attack whoever renders them."""

from __future__ import annotations

# Ways out of the sandbox: each must be refused, or at most render as nothing.
ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ['__cla','ss__']|join|list }}{{ ''|attr(['__cla','ss__']|join) }}",
    "{{ [messages]|map(attribute='__class__')|list }}",
    "{{ messages|map('attr', '__class__')|list }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ joiner.__init__.__globals__.os }}",
    "{{ namespace.__init__.__globals__.os }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ range.__class__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__.__builtins__.open('/etc/passwd').read() }}",
    "{{ dict.__class__.__init__ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{x.__class__}'.format(x=1) }}",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}",
    "{{ ('{0.__class__}'|safe).format(1) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(messages) }}",
    "{{ ['{0.__class__}']|map('format', 1)|list ~ ''.format.__self__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__code__ }}",
    "{% for x in [1] %}{{ loop.__class__ }}{{ loop._iterator.gi_frame }}{% endfor %}",
    "{{ (messages|map('upper')).gi_frame.f_globals }}",
    "{{ (1).__class__ }}{{ (1).to_bytes }}",
    "{{ undefined_name.__class__.__init__ }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "{{ namespace(__init__=1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import system %}",
    "{% extends 'base' %}",
    "{% autoescape true %}{% endautoescape %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 1}) }}",
    "{{ messages[0].clear() }}",
)

# Ways to use up the machine: each must be refused, soon and in little memory.
BOMBS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) if false %}{% endfor %}" * 2
    + "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{% for a in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
    "{% for a in range(99999) %}{% set x = range(99999)|list|length %}{% endfor %}",
    "{% for a in range(99999) %}{% set x = 99998 in range(99999)|list %}{% endfor %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 40
    + "x" * 1000
    + "{% endcall %}" * 40
    + "{% for a in range(99999) %}{% call m() %}"
    + "x" * 5000
    + "{% endcall %}{% endfor %}",
    "{{ 'A' * 10**10 }}",
    "{{ 10**10 * 'A' }}",
    "{% set x = 'A' * 100000000 %}",
    "{{ ['A'] * 10**9 }}",
    "{{ [[0] * 1000] * 1000000 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 2 ** (2 ** 40) }}",
    "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{{ ('9' * 4000)|int ** 99 }}",
    "{{ ('f' * 4000000)|int(0, 16) * 3 }}",
    "{{ 'A'|center(2000000000) }}",
    "{{ 'A'.center(2000000000) }}{{ 'A'.ljust(2000000000) }}",
    "{{ 'A'.rjust(2000000000) }}",
    "{{ 'A'.zfill(2000000000) }}",
    "{{ '\t'.expandtabs(2000000000) }}",
    "{{ 'a\nb'|indent(2000000000, true) }}",
    "{{ ('\n' * 1000000)|indent('x' * 1000000, true, true) }}",
    "{{ '%2000000000d' % 1 }}",
    "{{ '%*d' % (2000000000, 1) }}",
    "{{ '%.2000000000f' % 1.5 }}",
    "{{ '%((x))2000000000d' % {'(x)': 1} }}",
    "{{ '%2000000000s'|format('x') }}",
    "{{ '{:>2000000000}'.format('x') }}",
    "{{ '{:>{}}'.format('x', 2000000000) }}",
    "{{ '{0:{1}}'.format('x', '>2000000000') }}",
    "{{ ('{0}' * 99999).format('x' * 99999) }}",
    "{{ ('%s' * 9999) % (['x' * 99999] * 9999) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "{{ ('x' * 100000).join('y' * 100000) }}",
    "{{ ('y' * 100000)|join('x' * 100000) }}",
    "{{ range(99999)|join('x' * 99999) }}",
    "{{ range(99999)|map('string')|join('x' * 99999) }}",
    "{{ ('a ' * 4000000).split() }}",
    "{{ ('a,' * 4000000).split(',')|length }}{{ 'A' * 10**10 }}",
    "{{ ('\n' * 9000000).splitlines()|length }}",
    "{{ ('a' * 9000000)|list|length }}",
    "{{ 5|round(2000000000) }}{{ 5.5|round(2000000000, 'ceil') }}",
    "{{ [1]|batch(2000000000, 'x')|list }}",
    "{{ [1]|slice(2000000000, 'x')|list }}",
    "{{ messages|tojson(indent=2000000000) }}",
    "{{ strftime_now('%2000000000d') }}",
    "{{ strftime_now('%_2000000000d') }}",
    "{{ range(10**12) }}{{ range(10**12)|list }}",
    "{% set x = 'A' * 1000 %}" + "{% set x = x ~ x %}" * 60,
    "{% set x = 'A' * 1000 %}" + "{% set x = x + x %}" * 60,
    "{% set x = 'A' * 1000 %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "{% set x = 'A' * 1000 %}" + "{% set x = [x, x]|join %}" * 60,
    "{% set x = ['A'] %}" + "{% set x = x + x %}" * 60,
    "{% set x = ['A'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "{% set x = ['A'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x|string }}",
    "{% set x = ['A'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x ~ '' }}",
    "{% set x = ['A'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x|tojson }}",
    "{% set x = ['A'] %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x|tojson(indent=4) }}",
    "{% set x = ['A'] %}" + "{% set x = (x, x) %}" * 60 + "{{ '%s' % x }}",
    "{% set x = ['A'] %}" + "{% set x = [x, x] %}" * 60 + "{{ '{}'.format(x) }}",
    "{% set x = ['A'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x|upper }}",
    "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60
    + "{{ x == y }}",
    "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60
    + "{{ x in [y] }}",
    "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60
    + "{{ x is eq y }}",
    "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60
    + "{{ [x, y]|sort }}{{ [x, y]|max }}",
    "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60
    + "{{ [x].index(y) }}",
    "{% set x = [1] %}{% set y = [1] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60
    + "{{ [x].count(y) }}",
    "{% set n = namespace(x=[]) %}{% for i in range(99999) %}"
    + "{% set n.x = [n.x, [1, 2, 3, 4, 5, 6, 7, 8, 9]] %}{% endfor %}{{ n.x }}",
    "{% for i in range(99999) %}" + "x" * 10000 + "{% endfor %}",
    "{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
    "{% set n = namespace(x='') %}{% for i in range(99999) %}"
    + "{% set n.x = n.x ~ 'xxxx' %}{% endfor %}",
    "{% set x = 'a' * 4000000 %}" + "{% set y = x.count('b') %}{% set y = 'ab' in x %}" * 900,
    "{% set x = 'a' * 1000000 %}" + "{% if x.upper() == x.lower() %}{% endif %}" * 900,
    "{% set x = 'a' * 2000000 %}{% set y = x ~ '' %}" + "{{ 'b' if x == y }}" * 1200,
    "{% set x = 'a' * 1000000 %}" + "{% set y = x[::-1] %}" * 900,
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "-" * 9000 + "1 }}",
    "{{ 1" + "+1" * 9000 + " }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{% if true %}" * 900 + "{% endif %}" * 900,
    "{% for a in [1] %}" * 90 + "{% endfor %}" * 90,
    "x" * 1_000_000,
)
